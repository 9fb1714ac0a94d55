//! Moments of a device: when it got so far with its work, by its own clock.

use cudarc::driver::{CudaEvent, sys};

use super::Gpu;
use crate::error::Result;

/// The moment at which a device has done what was queued before. Making one waits for nothing.
pub struct Mark {
    event: CudaEvent,
    gpu: Gpu,
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "a moment of {:?}", self.gpu)
    }
}

impl Gpu {
    /// Marks the moment at which what was queued so far is done. `None` while this thread records a graph: what is
    /// recorded runs later, and perhaps often.
    pub fn mark(&self) -> Result<Option<Mark>> {
        if self.0.gate.recording().is_some() {
            return Ok(None);
        }
        let event = self.turn().record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
        let event = event.map_err(|e| self.error("marking a moment", e))?;
        Ok(Some(Mark { event, gpu: self.clone() }))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // The event makes the context its thread's when it is dropped.
        self.gpu.notice();
    }
}

impl Mark {
    /// What the driver knows it by.
    pub(super) fn event(&self) -> &CudaEvent {
        &self.event
    }

    /// Whether the device has come to it. Fails if what was queued before failed.
    pub fn is_past(&self) -> Result<bool> {
        self.gpu.bind()?;
        self.event.try_is_complete().map_err(|e| self.gpu.error("running kernels", e))
    }

    /// Seconds from an earlier mark of the same device to this one; waits for both. Events are about half a microsecond
    /// exact, and their distance is an f32 of milliseconds.
    pub fn since(&self, earlier: &Mark) -> Result<f64> {
        self.gpu.bind()?;
        let milliseconds = earlier.event.elapsed_ms(&self.event);
        milliseconds.map(|ms| 1e-3 * f64::from(ms)).map_err(|e| self.gpu.error("running kernels", e))
    }
}
