//! A kernel that stays on the device and answers one request after the other: neither a launch nor a copy by the driver, but
//! words that the host and the kernel write into each other's view (kernels/resident.cuh).
//!
//! The kernel leaves when nobody asked it anything for a while, and is launched again with the next request. A thread of its own
//! launches it and waits for it, on a stream of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytemuck::{Pod, Zeroable, bytes_of};
use cudarc::driver::{CudaStream, sys};

use super::pinned::PageLocked;
use super::{DeviceBuffer, Gpu, Grid, Ptr};
use crate::error::{Error, Result};

/// For how long a launch goes on: what waits for the whole device, as freeing memory does, gets its turn, and so does a display.
const LIFE: Duration = Duration::from_secs(1);

/// Words that the kernel copies at once; a request is a multiple of it.
const WORDS_AT_ONCE: usize = 4;

/// Where the host's numbers lie in the page that both see: those that the kernel writes and those that it reads apart.
const ANSWERED: usize = 64;
const PAGE: usize = 128;

/// Above a request's number: the kernel is to leave.
const LEAVE: u64 = 1 << 32;

/// Looks at the answer's number without giving other threads the processor.
const SPINS: usize = 20_000;

/// For how long a kernel stays without a request, given in milliseconds: a minute at most.
pub fn parse_idle(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(ms @ 1..=60_000) => Ok(Duration::from_millis(ms)),
        _ => Err("takes 1 to 60000 milliseconds".into()),
    }
}

/// What such a kernel takes among its arguments (`Resident` of kernels/resident.cuh).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ResidentArgs {
    asked: Ptr,
    answered: Ptr,
    request: Ptr,
    copy: Ptr,
    round: Ptr,
    ended: Ptr,
    idle_ns: u64,
    life_ns: u64,
    first: u32,
    words: i32,
}

impl ResidentArgs {
    /// Of a launch that does its work once and leaves.
    pub const NONE: ResidentArgs = ResidentArgs {
        asked: Ptr::NULL,
        answered: Ptr::NULL,
        request: Ptr::NULL,
        copy: Ptr::NULL,
        round: Ptr::NULL,
        ended: Ptr::NULL,
        idle_ns: 0,
        life_ns: 0,
        first: 0,
        words: 0,
    };
}

/// Arguments of a kernel that can stay.
pub trait Stays: Pod + Send {
    /// What it takes of this among its arguments.
    fn resident(&mut self) -> &mut ResidentArgs;
}

/// A kernel that can stay, and how it is launched.
pub struct Staying<A, K> {
    /// Its name.
    pub kernel: &'static str,
    /// As many blocks as the device has room for at once, beside whatever else runs there.
    pub grid: Grid,
    /// Its arguments.
    pub args: A,
    /// What they name.
    pub kept: K,
}

/// A kernel that stays on the device, with what it works on.
pub struct Resident<K> {
    shared: Arc<Shared>,
    /// Says that it shall be launched.
    launch: Option<mpsc::Sender<()>>,
    launcher: Option<JoinHandle<()>>,
    request: PageLocked,
    answer: PageLocked,
    /// The request's copy on the device, and the numbers that blocks tell each other.
    _memory: [DeviceBuffer<u32>; 2],
    /// Number of the last request.
    number: u32,
    kept: K,
}

/// What the host's threads and the kernel share.
struct Shared {
    page: PageLocked,
    /// Whether the kernel was asked for and not seen to leave.
    on_device: AtomicBool,
    failure: Mutex<Option<Error>>,
    launches: AtomicUsize,
}

impl Shared {
    fn asked(&self) -> &AtomicU64 {
        self.page.number(0)
    }

    fn answered(&self) -> u32 {
        self.page.number(ANSWERED / 8).load(Ordering::Acquire) as u32
    }

    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> std::fmt::Debug for Resident<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "a resident kernel, launched {} times", self.launches())
    }
}

impl Gpu {
    /// Makes a kernel ready to stay on the device until nobody asked it anything for `idle`: it is launched with the first request.
    /// A request has `words` words and an answer `answers` floats; `staying` is told where the kernel finds the one, and where it
    /// puts the other.
    pub fn resident<A: Stays, K>(
        &self,
        idle: Duration,
        (words, answers): (usize, usize),
        staying: impl FnOnce(Ptr, Ptr) -> Result<Staying<A, K>>,
    ) -> Result<Resident<K>> {
        let words = words.next_multiple_of(WORDS_AT_ONCE);
        let page_locked = |bytes: usize| {
            self.notice();
            PageLocked::new(&self.0.context, bytes).map_err(|e| self.error("allocating page-locked memory", e))
        };
        let (page, request, answer) = (page_locked(PAGE)?, page_locked(4 * words)?, page_locked(4 * answers)?);
        let (copy, numbers) = (self.alloc::<u32>("a request", words)?, self.alloc::<u32>("numbers of requests", 2)?);
        let shown = ResidentArgs {
            asked: page.address(),
            answered: page.address().offset::<u8>(ANSWERED),
            request: request.address(),
            copy: copy.ptr(),
            round: numbers.ptr(),
            ended: numbers.ptr().offset::<u32>(1),
            idle_ns: idle.as_nanos() as u64,
            life_ns: LIFE.as_nanos() as u64,
            first: 0,
            words: words as i32,
        };
        let Staying { kernel, grid, mut args, kept } = staying(copy.ptr(), answer.address())?;
        *args.resident() = shown;
        self.notice();
        let stream = self.0.context.new_stream().map_err(|e| self.error("making a stream", e))?;
        // What it works on is there when it comes, and nothing else uses the memory that it was given.
        self.synchronize()?;
        let page = Shared {
            page,
            on_device: AtomicBool::new(false),
            failure: Mutex::default(),
            launches: AtomicUsize::new(0),
        };
        let shared = Arc::new(page);
        let (launch, wanted) = mpsc::channel();
        let (gpu, told) = (self.clone(), shared.clone());
        let work = move || {
            while let Ok(()) = wanted.recv() {
                args.resident().first = told.answered();
                told.launches.fetch_add(1, Ordering::Relaxed);
                let stayed = gpu.stay(&stream, kernel, grid, &mut args);
                *told.failure() = stayed.err();
                told.on_device.store(false, Ordering::Release);
            }
        };
        let launcher = thread::Builder::new().name("resident kernel".into()).spawn(work);
        let launcher = launcher.map_err(|e| Error::device(format!("{self:?}"), "starting a thread", e.to_string()))?;
        let (launch, launcher) = (Some(launch), Some(launcher));
        Ok(Resident { shared, launch, launcher, request, answer, _memory: [copy, numbers], number: 0, kept })
    }

    /// Launches the kernel and waits until it leaves.
    fn stay(&self, stream: &CudaStream, kernel: &'static str, grid: Grid, args: &mut impl Stays) -> Result<()> {
        self.bind()?;
        // SAFETY: two numbers are there, and the kernel before has left.
        let zeroed = unsafe { sys::cuMemsetD32Async(args.resident().round.0, 0, 2, stream.cu_stream()) };
        zeroed.result().map_err(|e| self.error("filling memory", e))?;
        self.launch_together(stream, kernel, grid, bytes_of(args))?;
        stream.synchronize().map_err(|e| self.error("running a resident kernel", e))
    }
}

impl<K> Resident<K> {
    /// How often it was launched.
    pub fn launches(&self) -> usize {
        self.shared.launches.load(Ordering::Relaxed)
    }

    /// Whether it was launched and not seen to leave.
    pub fn is_on_device(&self) -> bool {
        self.shared.on_device.load(Ordering::Acquire)
    }

    /// What it works on.
    pub fn kept(&self) -> &K {
        &self.kept
    }

    /// Answers a request: `write` writes it, `read` reads the answer. Launches the kernel unless it is there, and waits.
    pub fn ask<R>(&mut self, write: impl FnOnce(&mut [u32]), read: impl FnOnce(&[f32]) -> R) -> Result<R> {
        // Every earlier request was answered, or its kernel has left: nobody else accesses either array.
        write(bytemuck::cast_slice_mut(self.request.as_mut_slice()));
        let before = self.number;
        self.number = self.number.wrapping_add(1);
        self.shared.asked().store(u64::from(self.number), Ordering::Release);
        let answered = self.wait();
        if answered.is_err() {
            // It has left without having seen the request, or while it worked on it.
            self.number = before;
        }
        answered.map(|()| read(bytemuck::cast_slice(self.answer.as_mut_slice())))
    }

    fn wait(&self) -> Result<()> {
        let answered = || self.shared.answered() == self.number;
        for look in 0_usize.. {
            if answered() {
                break;
            }
            if !self.shared.on_device.load(Ordering::Acquire) {
                // What it did before it left is seen by now.
                if answered() {
                    break;
                }
                if let Some(error) = self.shared.failure().take() {
                    return Err(error);
                }
                self.shared.on_device.store(true, Ordering::Release);
                let gone = || Error::device("cuda", "asking a resident kernel", "its thread has ended");
                self.launch.as_ref().and_then(|launch| launch.send(()).ok()).ok_or_else(gone)?;
            }
            match look < SPINS {
                true => std::hint::spin_loop(),
                false => thread::yield_now(),
            }
        }
        Ok(())
    }
}

impl<K> Drop for Resident<K> {
    fn drop(&mut self) {
        self.shared.asked().fetch_or(LEAVE, Ordering::Release);
        self.launch.take();
        // What it works on is given back when it has left.
        self.launcher.take().map(JoinHandle::join);
    }
}
