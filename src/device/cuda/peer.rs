//! What several devices of one process do together: a second stream of a device, and copies from device to device.

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUresult};

use super::{Gpu, Mark, Ptr};
use crate::error::{Error, Result};

/// f32 values in a device's memory, at one place as long as they are held, for other devices to copy from.
pub struct Exposed {
    at: u64,
    len: usize,
    gpu: Gpu,
}

impl std::fmt::Debug for Exposed {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} values on {:?}", self.len, self.gpu)
    }
}

impl Gpu {
    /// The same device with a stream of its own, for work beside what this one queues. Neither waits for the other but by
    /// [`Gpu::wait_for`].
    pub fn beside(&self) -> Result<Gpu> {
        Gpu::open(self.ordinal(), self.arithmetic())
    }

    /// What is queued from now on runs when the device has come to this mark of another stream.
    pub fn wait_for(&self, mark: &Mark) -> Result<()> {
        self.bind()?;
        self.turn().wait(mark.event()).map_err(|e| self.error("waiting for another stream", e))
    }

    /// Whether the driver lets this device reach the other's memory in place.
    pub fn reaches(&self, other: &Gpu) -> Result<bool> {
        let (mut can, [from, to]) = (0, [self, other].map(|gpu| gpu.0.context.cu_device()));
        // SAFETY: both devices are open, and the driver writes one number.
        let asked = unsafe { sys::cuDeviceCanAccessPeer(&mut can, from, to) }.result();
        asked.map_err(|e| self.error("asking for peer access", e))?;
        Ok(can != 0)
    }

    /// Makes copies from the other go without the host, if [`Gpu::reaches`] says that they can; whether they do.
    pub fn reach(&self, other: &Gpu) -> Result<bool> {
        if !self.reaches(other)? {
            return Ok(false);
        }
        self.bind()?;
        // SAFETY: both contexts are open; this thread's is this device's.
        match unsafe { sys::cuCtxEnablePeerAccess(other.0.context.cu_ctx(), 0) } {
            CUresult::CUDA_SUCCESS | CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(true),
            // Of more devices than the hardware connects, copies go through the host.
            CUresult::CUDA_ERROR_TOO_MANY_PEERS => Ok(false),
            code => code.result().map(|()| true).map_err(|e| self.error("reaching another device's memory", e)),
        }
    }

    /// Memory for so many values.
    pub fn expose(&self, len: usize) -> Result<Exposed> {
        self.bind()?;
        // SAFETY: the memory is written before it is read, and freed once, when this is dropped.
        let at = unsafe { result::malloc_sync((len * size_of::<f32>()).max(1)) };
        let at = at.map_err(|e| self.no_memory("exchanges", len * size_of::<f32>(), e))?;
        Ok(Exposed { at, len, gpu: self.clone() })
    }
}

impl Exposed {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device that they lie on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Where value `start` lies, of at least `count` from there on. Fails if there are fewer.
    pub fn ptr(&self, start: usize, count: usize) -> Result<Ptr> {
        match start.checked_add(count).is_some_and(|end| end <= self.len) {
            true => Ok(Ptr(self.at).offset::<f32>(start)),
            false => Err(Error::shape("exchange", format!("{count} values from {start} of {self:?}"))),
        }
    }

    /// Queues on `gpu` a copy of `count` values to another place on the same device.
    pub fn copy_within(gpu: &Gpu, to: Ptr, from: Ptr, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        gpu.bind()?;
        // SAFETY: whoever calls names places with room for so many values, which live until the stream has done it.
        let queued =
            unsafe { result::memcpy_dtod_async(to.0, from.0, count * size_of::<f32>(), gpu.turn().cu_stream()) };
        queued.map_err(|e| gpu.error("copying", e))
    }

    /// Queues on `gpu`, a stream of this one's device, a copy of `count` values of another device to places from `start` on.
    pub fn copy_from(&self, gpu: &Gpu, start: usize, other: &Exposed, from: usize, count: usize) -> Result<()> {
        let (to, from) = (self.ptr(start, count)?, other.ptr(from, count)?);
        if count == 0 {
            return Ok(());
        }
        gpu.bind()?;
        let [here, there] = [&self.gpu, &other.gpu].map(|gpu| gpu.0.context.cu_ctx());
        // SAFETY: both arrays hold so many values and live until the stream has done it, as whoever shares them sees to.
        let queued = unsafe {
            sys::cuMemcpyPeerAsync(to.0, here, from.0, there, count * size_of::<f32>(), gpu.turn().cu_stream())
        };
        queued.result().map_err(|e| gpu.error(format!("copying from {:?}", other.gpu), e))
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        // Of a device that failed, nothing is given back.
        let _ = self.gpu.synchronize();
        if self.gpu.bind().is_ok() {
            // SAFETY: the memory is the driver's, and nothing that was queued uses it any more.
            let _ = unsafe { result::free_sync(self.at) };
        }
    }
}
