//! The part of NVIDIA's library for several devices that point-to-point programs call, for ranks of one process: a library of
//! the name `libnccl.so.2` may be this one, beside `libcuda.so.1`.
//!
//! Stricter than NCCL: a rank that does not come, sizes that differ and a group that is not ended are said, not waited for.
//! Transfers are done when `ncclGroupEnd` returns, in the order of the stream that was given.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::abi::memory::{cuMemcpyDtoHAsync_v2, cuMemcpyHtoDAsync_v2};
use crate::driver::say;

const SUCCESS: c_int = 0;
const UNHANDLED_CUDA: c_int = 1;
const SYSTEM: c_int = 2;
const INTERNAL: c_int = 3;
const INVALID_ARGUMENT: c_int = 4;
const INVALID_USAGE: c_int = 5;
const REMOTE: c_int = 6;

/// What `ncclGetVersion` says: 2.21.5.
const VERSION: c_int = 22_105;

/// Bytes of each type of values, by its number.
const SIZES: [usize; 12] = [1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1];

/// An identifier of a communicator's ranks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct UniqueId([u8; 128]);

/// What `ncclComm_t` points to.
pub struct Comm {
    id: UniqueId,
    rank: usize,
    size: usize,
}

/// The ranks of one identifier.
#[derive(Default)]
struct World {
    size: usize,
    joined: BTreeMap<usize, ()>,
    /// From whom to whom.
    mail: HashMap<(usize, usize), VecDeque<Vec<u8>>>,
    aborted: bool,
}

struct Transfer {
    comm: *const Comm,
    sends: bool,
    at: u64,
    bytes: usize,
    peer: usize,
    stream: u64,
}

static WORLDS: Mutex<Option<HashMap<UniqueId, World>>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();
static IDS: AtomicU64 = AtomicU64::new(1);
static GROUPS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How many groups are open, and what was asked for in them.
    static OPEN: RefCell<(usize, Vec<Transfer>)> = const { RefCell::new((0, Vec::new())) };
}

fn worlds() -> MutexGuard<'static, Option<HashMap<UniqueId, World>>> {
    WORLDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a rank waits for another: `CUSIM_NCCL_WAIT` seconds.
fn patience() -> Duration {
    let seconds = std::env::var("CUSIM_NCCL_WAIT").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// The group of this number, of all ranks together, fails: `CUSIM_NCCL_FAIL`.
fn failing() -> Option<u64> {
    std::env::var("CUSIM_NCCL_FAIL").ok().and_then(|text| text.parse().ok())
}

fn call(name: &str, f: impl FnOnce() -> Result<(), c_int>) -> c_int {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => {
            say(&format!("{name}: internal error; please report it with the message above"));
            INTERNAL
        }
    }
}

/// Waits until `ready` gives something of the world, or says what is missing.
fn wait<T>(
    id: UniqueId,
    mut ready: impl FnMut(&mut World) -> Option<T>,
    missing: impl Fn(&World) -> String,
) -> Result<T, c_int> {
    let (start, patience) = (Instant::now(), patience());
    let mut worlds = worlds();
    loop {
        let Some(world) = worlds.as_mut().and_then(|worlds| worlds.get_mut(&id)) else { return Err(INVALID_USAGE) };
        if world.aborted {
            return Err(REMOTE);
        }
        if let Some(found) = ready(world) {
            return Ok(found);
        }
        if start.elapsed() > patience {
            say(&format!("[nccl] {} after {} s", missing(world), patience.as_secs()));
            return Err(SYSTEM);
        }
        worlds = CHANGED.wait_timeout(worlds, Duration::from_millis(50)).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// The library's version.
///
/// # Safety
/// As NCCL's function of this name; so are all of this file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: the caller gives a valid pointer.
    unsafe { version.write(VERSION) };
    SUCCESS
}

/// A code in words.
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(code: c_int) -> *const c_char {
    let text = match code {
        SUCCESS => c"no error",
        UNHANDLED_CUDA => c"unhandled cuda error",
        SYSTEM => c"unhandled system error",
        INTERNAL => c"internal error",
        INVALID_ARGUMENT => c"invalid argument",
        INVALID_USAGE => c"invalid usage",
        REMOTE => c"remote process exited or there was a network error",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

/// A new identifier.
///
/// # Safety
/// See [`ncclGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetUniqueId(id: *mut UniqueId) -> c_int {
    let mut bytes = [0; 128];
    bytes[..8].copy_from_slice(&IDS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    bytes[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    // SAFETY: the caller gives a valid pointer.
    unsafe { id.write(UniqueId(bytes)) };
    SUCCESS
}

/// Joins the ranks of an identifier; waits for all.
///
/// # Safety
/// See [`ncclGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRank(comm: *mut *mut Comm, size: c_int, id: UniqueId, rank: c_int) -> c_int {
    call("ncclCommInitRank", || {
        let (Ok(size), Ok(rank)) = (usize::try_from(size), usize::try_from(rank)) else { return Err(INVALID_ARGUMENT) };
        if rank >= size || id.0[8..12] != std::process::id().to_le_bytes() {
            say("[nccl] ranks must be below the number of ranks, and of one process");
            return Err(INVALID_ARGUMENT);
        }
        {
            let mut worlds = worlds();
            let world = worlds.get_or_insert_default().entry(id).or_default();
            if world.size != 0 && world.size != size || world.joined.insert(rank, ()).is_some() {
                say(&format!("[nccl] rank {rank} of {size} joins {} ranks, or joins twice", world.size));
                return Err(INVALID_USAGE);
            }
            world.size = size;
            CHANGED.notify_all();
        }
        let missing = |world: &World| {
            let missing: Vec<String> =
                (0..size).filter(|rank| !world.joined.contains_key(rank)).map(|rank| rank.to_string()).collect();
            format!("rank {rank} of {size} waits to join, these did not come: {}", missing.join(", "))
        };
        wait(id, |world| (world.joined.len() == size).then_some(()), missing)?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { comm.write(Box::into_raw(Box::new(Comm { id, rank, size }))) };
        Ok(())
    })
}

/// Ends a communicator, and all that others wait for in it.
///
/// # Safety
/// See [`ncclGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommAbort(comm: *mut Comm) -> c_int {
    // SAFETY: the caller gives what ncclCommInitRank made, once.
    let comm = unsafe { Box::from_raw(comm) };
    if let Some(world) = worlds().as_mut().and_then(|worlds| worlds.get_mut(&comm.id)) {
        world.aborted = true;
    }
    CHANGED.notify_all();
    SUCCESS
}

/// Ends a communicator whose work is done.
///
/// # Safety
/// See [`ncclGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommDestroy(comm: *mut Comm) -> c_int {
    // SAFETY: the caller gives what ncclCommInitRank made, once.
    let comm = unsafe { Box::from_raw(comm) };
    let mut worlds = worlds();
    let Some(worlds) = worlds.as_mut() else { return INVALID_USAGE };
    let Some(world) = worlds.get_mut(&comm.id) else { return INVALID_USAGE };
    world.joined.remove(&comm.rank);
    if world.joined.is_empty() {
        let left: usize = world.mail.values().map(VecDeque::len).sum();
        if left > 0 {
            say(&format!("[nccl] {left} transfers were sent and never received"));
        }
        worlds.remove(&comm.id);
    }
    SUCCESS
}

/// What went wrong meanwhile.
///
/// # Safety
/// See [`ncclGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGetAsyncError(comm: *const Comm, error: *mut c_int) -> c_int {
    // SAFETY: the caller gives a communicator that is not ended, and a valid pointer.
    unsafe {
        let id = (*comm).id;
        let aborted = worlds().as_ref().and_then(|worlds| worlds.get(&id)).is_none_or(|world| world.aborted);
        error.write(if aborted { REMOTE } else { SUCCESS });
    }
    SUCCESS
}

/// Begins a group.
#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupStart() -> c_int {
    OPEN.with_borrow_mut(|(depth, _)| *depth += 1);
    SUCCESS
}

/// Does what was asked for in the group.
#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupEnd() -> c_int {
    call("ncclGroupEnd", || {
        let all = OPEN.with_borrow_mut(|(depth, transfers)| {
            *depth = depth.checked_sub(1).ok_or(INVALID_USAGE)?;
            Ok::<_, c_int>(if *depth == 0 { std::mem::take(transfers) } else { Vec::new() })
        })?;
        if all.is_empty() {
            return Ok(());
        }
        if failing() == Some(GROUPS.fetch_add(1, Ordering::Relaxed)) {
            say("[nccl] this group fails, as CUSIM_NCCL_FAIL says");
            return Err(SYSTEM);
        }
        for transfer in all.iter().filter(|transfer| transfer.sends) {
            let mut bytes = vec![0u8; transfer.bytes];
            // SAFETY: the host's array has as many bytes; the device's range is checked by the call, which waits.
            let code = unsafe {
                cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), transfer.at, transfer.bytes, transfer.stream)
            };
            if code != 0 {
                return Err(UNHANDLED_CUDA);
            }
            // SAFETY: communicators are ended after their groups.
            let Comm { id, rank, .. } = unsafe { &*transfer.comm };
            if let Some(world) = worlds().as_mut().and_then(|worlds| worlds.get_mut(id)) {
                world.mail.entry((*rank, transfer.peer)).or_default().push_back(bytes);
            }
            CHANGED.notify_all();
        }
        for transfer in all.iter().filter(|transfer| !transfer.sends) {
            // SAFETY: as above.
            let Comm { id, rank, .. } = unsafe { &*transfer.comm };
            let from = transfer.peer;
            let bytes = wait(
                *id,
                |world| world.mail.get_mut(&(from, *rank)).and_then(VecDeque::pop_front),
                |_| format!("rank {rank} waits for {} bytes of rank {from}", transfer.bytes),
            )?;
            if bytes.len() != transfer.bytes {
                let (sent, wanted) = (bytes.len(), transfer.bytes);
                say(&format!("[nccl] rank {from} sent {sent} bytes, rank {rank} receives {wanted}"));
                return Err(INVALID_ARGUMENT);
            }
            // SAFETY: the host's array has as many bytes and is read before the call returns.
            let code =
                unsafe { cuMemcpyHtoDAsync_v2(transfer.at, bytes.as_ptr().cast(), bytes.len(), transfer.stream) };
            if code != 0 {
                return Err(UNHANDLED_CUDA);
            }
        }
        Ok(())
    })
}

/// # Safety
/// See [`ncclGetVersion`].
unsafe fn transfer(
    comm: *const Comm,
    sends: bool,
    at: u64,
    (count, kind): (usize, c_int),
    peer: c_int,
    stream: u64,
) -> c_int {
    // SAFETY: the caller gives a communicator that is not ended.
    let size = unsafe { (*comm).size };
    let (Ok(peer), Some(of)) = (usize::try_from(peer), usize::try_from(kind).ok().and_then(|kind| SIZES.get(kind)))
    else {
        return INVALID_ARGUMENT;
    };
    if peer >= size {
        return INVALID_ARGUMENT;
    }
    let transfer = Transfer { comm, sends, at, bytes: count * of, peer, stream };
    ncclGroupStart();
    OPEN.with_borrow_mut(|(_, transfers)| transfers.push(transfer));
    ncclGroupEnd()
}

/// Sends values to a rank.
///
/// # Safety
/// See [`ncclGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclSend(
    at: *const c_void,
    count: usize,
    kind: c_int,
    peer: c_int,
    comm: *mut Comm,
    stream: u64,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { transfer(comm, true, at as u64, (count, kind), peer, stream) }
}

/// Receives values of a rank.
///
/// # Safety
/// See [`ncclGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclRecv(
    at: *mut c_void,
    count: usize,
    kind: c_int,
    peer: c_int,
    comm: *mut Comm,
    stream: u64,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { transfer(comm, false, at as u64, (count, kind), peer, stream) }
}
