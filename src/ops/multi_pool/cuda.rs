//! `multi_pool` on CUDA devices (kernels/multi_pool.cu).

use bytemuck::{Pod, Zeroable};

use super::MultiPool;
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::Result;
use crate::tensor::Tensor;

/// What backward needs: row of each maximum (n, d).
pub struct Saved {
    argmax: DeviceBuffer<u32>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    sequence: Ptr,
    global: Ptr,
    offsets: Ptr,
    out: Ptr,
    argmax: Ptr,
    d: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    grad: Ptr,
    offsets: Ptr,
    argmax: Ptr,
    dsequence: Ptr,
    dglobal: Ptr,
    d: i32,
    /// Bit 0: dsequence is added to; bit 1: dglobal.
    adds: i32,
}

/// Columns of a block.
const COLUMNS: usize = 128;

fn grid(sequences: usize, d: usize) -> Grid {
    Grid { blocks: [sequences, d.div_ceil(COLUMNS), 1], threads: 128, shared: 0 }
}

impl MultiPool {
    pub(super) fn forward_on(&self, gpu: &Gpu, [sequence, global]: [&Tensor; 2]) -> Result<(Tensor, Saved)> {
        let (n, d) = (self.sequences.len(), sequence.shape()[1]);
        let (out, argmax) = (gpu.alloc("multi_pool", n * 3 * d)?, gpu.alloc("multi_pool", n * d)?);
        let args = Forward {
            sequence: sequence.ptr(),
            global: global.ptr(),
            offsets: self.sequences.offsets().on(gpu)?,
            out: out.ptr(),
            argmax: argmax.ptr(),
            d: d as i32,
            padding: 0,
        };
        gpu.launch("multi_pool_forward", grid(n, d), &args)?;
        Ok((Tensor::on_device([n, 3 * d], out)?, Saved { argmax }))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let (n, d) = (self.sequences.len(), grad.shape()[1] / 3);
        let (dsequence, dglobal) = (grads.on_device(0)?, grads.on_device(1)?);
        let args = Backward {
            grad: grad.ptr(),
            offsets: self.sequences.offsets().on(gpu)?,
            argmax: saved.argmax.ptr(),
            dsequence: dsequence.at,
            dglobal: dglobal.at,
            d: d as i32,
            adds: dsequence.adds as i32 | (dglobal.adds as i32) << 1,
        };
        gpu.launch("multi_pool_backward", grid(n, d), &args)
    }
}
