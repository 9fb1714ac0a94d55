//! NVIDIA's library for several devices, loaded if it is there. Eleven of its functions, which have had these arguments since
//! version 2.7 of 2020; nothing of it is linked, and whatever is wrong with it is a reason and not a panic.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;

use super::{Gpu, Ptr};
use crate::error::{Error, Result};

/// The name under which every package has it.
const NAME: &str = "libnccl.so.2";

/// Says where it is, or with `off` that it is not wanted.
const VARIABLE: &str = "FISSFUSE_NCCL";

/// The oldest that sends from rank to rank.
const OLDEST: c_int = 2_700;

/// NCCL's number for f32.
const F32: c_int = 7;

/// What names a group of ranks that are about to join.
pub type NcclId = [u8; 128];

#[derive(Clone, Copy)]
#[repr(C)]
struct Id(NcclId);

type Handle = *mut c_void;
type Transfer<P> = unsafe extern "C" fn(P, usize, c_int, c_int, Handle, Handle) -> c_int;

/// The library.
pub struct Nccl {
    version: c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    unique_id: unsafe extern "C" fn(*mut Id) -> c_int,
    init_rank: unsafe extern "C" fn(*mut Handle, c_int, Id, c_int) -> c_int,
    abort: unsafe extern "C" fn(Handle) -> c_int,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
    async_error: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    send: Transfer<*const c_void>,
    receive: Transfer<*mut c_void>,
    /// What the functions are of.
    _library: Library,
}

/// A version's number in the usual form: two digits of each part since 2.9, one before.
fn version_text(version: c_int) -> String {
    let scale = if version < 10_000 { 1_000 } else { 10_000 };
    format!("{}.{}.{}", version / scale, version % scale / 100, version % 100)
}

impl Nccl {
    /// The library, or why there is none. The same answer each time.
    pub fn load() -> Result<&'static Nccl, String> {
        static LOADED: OnceLock<Result<Nccl, String>> = OnceLock::new();
        LOADED.get_or_init(Nccl::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Nccl, String> {
        let name = match std::env::var(VARIABLE) {
            Ok(name) if name == "off" => return Err(format!("{VARIABLE} is off")),
            Ok(name) if !name.is_empty() => name,
            _ => NAME.into(),
        };
        // SAFETY: what a library does when it is loaded is its vendor's; whoever names another vouches for it.
        let library = unsafe { Library::new(&name) }.map_err(|e| format!("{name} cannot be loaded: {e}"))?;
        macro_rules! function {
            ($symbol:literal) => {
                // SAFETY: NCCL's header gives the function of this name the type of the field that it goes to.
                *unsafe { library.get(concat!($symbol, "\0").as_bytes()) }
                    .map_err(|_| format!("{name} has no {}: it is not NCCL, or older than 2.7", $symbol))?
            };
        }
        let get_version: unsafe extern "C" fn(*mut c_int) -> c_int = function!("ncclGetVersion");
        let mut nccl = Nccl {
            version: 0,
            error_string: function!("ncclGetErrorString"),
            unique_id: function!("ncclGetUniqueId"),
            init_rank: function!("ncclCommInitRank"),
            abort: function!("ncclCommAbort"),
            destroy: function!("ncclCommDestroy"),
            async_error: function!("ncclCommGetAsyncError"),
            group_start: function!("ncclGroupStart"),
            group_end: function!("ncclGroupEnd"),
            send: function!("ncclSend"),
            receive: function!("ncclRecv"),
            _library: library,
        };
        // SAFETY: the function writes one number.
        let code = unsafe { get_version(&mut nccl.version) };
        match code {
            0 if nccl.version >= OLDEST => Ok(nccl),
            0 => Err(format!("{name} is NCCL {}, older than 2.7", nccl.version())),
            code => Err(format!("{name} does not say its version ({code})")),
        }
    }

    /// Its version, such as 2.21.5.
    pub fn version(&self) -> String {
        version_text(self.version)
    }

    fn check(&self, doing: &str, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the function gives a text that lives as long as the library, or none.
        let said = unsafe {
            let text = (self.error_string)(code);
            if text.is_null() { "no reason given".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        Err(format!("NCCL {}: {doing}: {said} ({code})", self.version()))
    }

    /// A name for a group of ranks.
    pub fn id(&self) -> Result<NcclId, String> {
        let mut id = Id([0; 128]);
        // SAFETY: the function writes 128 bytes.
        let code = unsafe { (self.unique_id)(&mut id) };
        self.check("naming a group", code).map(|()| id.0)
    }

    /// Joins the group of this name as one of its ranks, with a device; waits for all others.
    pub fn join(&'static self, gpu: &Gpu, id: NcclId, rank: usize, size: usize) -> Result<Communicator, String> {
        gpu.bind().map_err(|e| e.to_string())?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the function writes a pointer; the device's context is this thread's.
        let code = unsafe { (self.init_rank)(&mut handle, size as c_int, Id(id), rank as c_int) };
        self.check("joining the ranks", code)?;
        Ok(Communicator { nccl: self, handle, gpu: gpu.clone(), whole: true })
    }
}

/// A rank among those of a group.
pub struct Communicator {
    nccl: &'static Nccl,
    handle: Handle,
    gpu: Gpu,
    /// Whether all that was asked for worked.
    whole: bool,
}

// SAFETY: any thread may use the library's handle as long as no two do at once, and a Communicator is not Sync.
unsafe impl Send for Communicator {}

/// Values at a place on the device, and the rank that they go to or come from.
pub type Transferred = (usize, Ptr, usize);

impl Communicator {
    /// The device of its rank.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The library's version.
    pub fn version(&self) -> String {
        self.nccl.version()
    }

    /// Queues transfers of f32 values to other ranks and from them, all at once, on the device's stream. The places must hold so
    /// many values as long as it takes.
    pub fn exchange(&mut self, to: &[Transferred], from: &[Transferred]) -> Result<()> {
        self.gpu.bind()?;
        let (nccl, handle, gpu) = (self.nccl, self.handle, self.gpu.clone());
        let stream = gpu.turn();
        let stream = stream.cu_stream().cast();
        // SAFETY: the communicator is not ended, the stream is its device's, and the places hold so many values as whoever calls
        // promises. A group that was begun is ended whatever happens within it.
        let codes = unsafe {
            let mut codes = vec![(nccl.group_start)()];
            for &(rank, at, count) in to.iter().filter(|(.., count)| *count > 0) {
                codes.push((nccl.send)(at.0 as *const c_void, count, F32, rank as c_int, handle, stream));
            }
            for &(rank, at, count) in from.iter().filter(|(.., count)| *count > 0) {
                codes.push((nccl.receive)(at.0 as *mut c_void, count, F32, rank as c_int, handle, stream));
            }
            codes.push((nccl.group_end)());
            codes
        };
        self.checked("sending gradients", codes.into_iter().find(|&code| code != 0).unwrap_or(0))
    }

    /// Fails if something that was queued failed meanwhile.
    pub fn check(&mut self) -> Result<()> {
        let mut error = 0;
        // SAFETY: the communicator is not ended, and the function writes one number.
        let code = unsafe { (self.nccl.async_error)(self.handle, &mut error) };
        self.checked("asking how it goes", code)?;
        self.checked("sending gradients", error)
    }

    fn checked(&mut self, doing: &str, code: c_int) -> Result<()> {
        self.nccl.check(doing, code).map_err(|reason| {
            self.whole = false;
            Error::Rank(reason)
        })
    }

    /// Ends what is under way, because it will never end by itself.
    pub fn give_up(&mut self) {
        self.whole = false;
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        let end = if self.whole { self.nccl.destroy } else { self.nccl.abort };
        if self.gpu.bind().is_ok() {
            // SAFETY: the communicator is ended once. What failed has been said.
            let _ = unsafe { end(self.handle) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        for (number, text) in [(2_708, "2.7.8"), (21_805, "2.18.5"), (22_705, "2.27.5")] {
            assert_eq!(version_text(number), text);
        }
    }
}
