//! `multi_pool` on CUDA devices (kernels/multi_pool.cu).

use bytemuck::{Pod, Zeroable};

use super::{MultiPool, NAME, Saved};
use crate::autograd::{InstanceGrads, Reached};
use crate::device::Gpu;
use crate::device::cuda::Ptr;
use crate::error::Result;
use crate::ops::elsewhere;
use crate::tensor::Tensor;

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

/// The most instances of a launch.
const INSTANCES: usize = 8;

/// Threads of a block, and its columns.
const THREADS: u32 = 128;
const COLUMNS: usize = 128;

fn blocks(op: &MultiPool, d: usize) -> usize {
    op.sequences.len() * d.div_ceil(COLUMNS)
}

/// Each instance's output, of its sequence and global vectors.
pub fn forward(gpu: &Gpu, of: &[(&MultiPool, [&Tensor; 2])]) -> Result<Vec<(Tensor, Saved)>> {
    let mut launches = gpu.launches("multi_pool_forward", INSTANCES, THREADS);
    let mut results = Vec::with_capacity(of.len());
    for (op, [sequence, global]) in of {
        let (n, d) = (op.sequences.len(), sequence.shape()[1]);
        let (out, argmax) = (gpu.alloc("multi_pool", n * 3 * d)?, gpu.alloc("multi_pool", n * d)?);
        let args = Forward {
            sequence: sequence.ptr(),
            global: global.ptr(),
            offsets: op.sequences.offsets().on(gpu)?,
            out: out.ptr(),
            argmax: argmax.ptr(),
            d: d as i32,
            padding: 0,
        };
        launches.push(blocks(op, d), args, &[])?;
        results.push((Tensor::on_device([n, 3 * d], out)?, Saved::Device(argmax)));
    }
    launches.run()?;
    Ok(results)
}

pub fn backward(gpu: &Gpu, reached: &[Reached<MultiPool>], grads: &mut InstanceGrads) -> Result<()> {
    let mut launches = gpu.launches("multi_pool_backward", INSTANCES, THREADS);
    for Reached { op, number, saved, grad } in reached {
        let Saved::Device(argmax) = saved else { return Err(elsewhere(NAME)) };
        let (mut grads, d) = (grads.of(*number), grad.shape()[1] / 3);
        let (dsequence, dglobal) = (grads.on_device(0)?, grads.on_device(1)?);
        let args = Backward {
            grad: grad.ptr(),
            offsets: op.sequences.offsets().on(gpu)?,
            argmax: argmax.ptr(),
            dsequence: dsequence.at,
            dglobal: dglobal.at,
            d: d as i32,
            adds: dsequence.adds as i32 | (dglobal.adds as i32) << 1,
        };
        launches.push(blocks(op, d), args, &[dsequence.at, dglobal.at])?;
    }
    launches.run()
}
