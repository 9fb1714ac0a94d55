//! Memory with the same value everywhere: by a memset, or where a step is recorded by a kernel (kernels/fill.cu).
//!
//! A graph that takes new parameters may refuse memsets of other sizes, and the sizes of a step's arrays differ from batch to
//! batch; kernels take any grid.

use bytemuck::{Pod, Zeroable};
use cudarc::driver::sys;

use super::gate::Runs;
use super::{DeviceBuffer, Gpu, Grid, Ptr};
use crate::error::Result;

/// Bytes that a thread writes. Memory begins at a multiple of it.
const BYTES: usize = 16;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Fill {
    out: Ptr,
    bytes: i64,
    value: u32,
    padding: i32,
}

impl Gpu {
    /// Zeros.
    pub fn zeros<T: Pod>(&self, label: &'static str, len: usize) -> Result<DeviceBuffer<T>> {
        let buffer = self.alloc(label, len)?;
        self.fill(&buffer, 0, || {
            let bytes = (len * size_of::<T>()).max(1);
            // SAFETY: the array holds these bytes, and its memory is given back in the stream's order.
            unsafe { sys::cuMemsetD8Async(buffer.ptr().0, 0, bytes, self.turn().cu_stream()) }
        })?;
        Ok(buffer)
    }

    /// The same value everywhere.
    pub fn filled(&self, label: &'static str, len: usize, value: f32) -> Result<DeviceBuffer<f32>> {
        let buffer = self.alloc(label, len)?;
        self.fill(&buffer, value.to_bits(), || {
            // SAFETY: as for zeros.
            unsafe { sys::cuMemsetD32Async(buffer.ptr().0, value.to_bits(), len, self.turn().cu_stream()) }
        })?;
        Ok(buffer)
    }

    /// Queues the kernel while a step is recorded, else the memset.
    fn fill<T: Pod>(&self, buffer: &DeviceBuffer<T>, value: u32, memset: impl FnOnce() -> sys::CUresult) -> Result<()> {
        if self.0.gate.recording() == Some(Runs::Once) {
            let bytes = buffer.len() * size_of::<T>();
            let args = Fill { out: buffer.ptr(), bytes: bytes as i64, value, padding: 0 };
            return self.launch("fill", Grid::values(bytes.div_ceil(BYTES), 256), &args);
        }
        memset().result().map_err(|e| self.error("filling memory", e))
    }
}
