//! `sequence_pool` on CUDA devices (kernels/sequence_pool.cu).

use bytemuck::{Pod, Zeroable};

use super::{NAME, Pooling, SequencePool};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Target};
use crate::error::Result;
use crate::tensor::Tensor;

/// What backward needs: row of each maximum (n, d), if maxima are wanted.
pub struct Saved {
    argmax: Option<DeviceBuffer<u32>>,
}

/// The argument of both kernels.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    from: Ptr,
    offsets: Ptr,
    argmax: Ptr,
    to: Ptr,
    d: i32,
    adds: i32,
}

/// Columns of a block.
const COLUMNS: usize = 32;

impl SequencePool {
    fn launch(&self, gpu: &Gpu, kernel: &'static str, from: &Tensor, saved: &Saved, to: Target) -> Result<()> {
        let d = from.shape()[1];
        let args = Args {
            from: from.ptr(),
            offsets: self.sequences.offsets().on(gpu)?,
            argmax: saved.argmax.as_ref().map_or(Ptr::NULL, DeviceBuffer::ptr),
            to: to.at,
            d: d as i32,
            adds: to.adds as i32,
        };
        let blocks = [self.sequences.len(), d.div_ceil(COLUMNS), 1];
        gpu.launch(kernel, Grid { blocks, threads: 128, shared: 0 }, &args)
    }

    pub(super) fn forward_on(&self, gpu: &Gpu, x: &Tensor) -> Result<(Tensor, Saved)> {
        let (n, d) = (self.sequences.len(), x.shape()[1]);
        let out = gpu.alloc(NAME, n * d)?;
        let argmax = match self.kind {
            Pooling::Mean => None,
            Pooling::Max => Some(gpu.alloc(NAME, n * d)?),
        };
        let saved = Saved { argmax };
        self.launch(gpu, "sequence_pool_forward", x, &saved, Target { at: out.ptr(), adds: false })?;
        Ok((Tensor::on_device([n, d], out)?, saved))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: Saved, grad: &Tensor, dx: Target) -> Result<()> {
        match dx.is_null() {
            true => Ok(()),
            false => self.launch(gpu, "sequence_pool_backward", grad, &saved, dx),
        }
    }
}
