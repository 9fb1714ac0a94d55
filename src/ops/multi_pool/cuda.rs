//! `multi_pool` on CUDA devices (kernels/multi_pool.cu).

use bytemuck::{Pod, Zeroable};

use super::{MultiPool, NAME, Saved};
use crate::autograd::{InstanceGrads, Reached};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Launches, Ptr, Target};
use crate::error::Result;
use crate::ops::elsewhere;
use crate::ops::project::Part;
use crate::tensor::{NormalizedRows, Tensor};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    sequence: Ptr,
    gamma: Ptr,
    beta: Ptr,
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

/// Of rows of f32, and of [normalized](Tensor::normalized) ones.
const FORWARD: [&str; 2] = ["multi_pool_forward_f32", "multi_pool_forward_f16"];

/// What backward needs.
pub struct DeviceSaved {
    /// Of each column the row, among all, of its maximum (n, d).
    argmax: DeviceBuffer<u32>,
    /// Whether the rows are normalized.
    normalized: bool,
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
    let mut launches = FORWARD.map(|kernel| gpu.launches(kernel, INSTANCES, THREADS));
    let mut results = Vec::with_capacity(of.len());
    for (op, [sequence, global]) in of {
        let (n, d) = (op.sequences.len(), sequence.shape()[1]);
        let (out, argmax) = (gpu.alloc("multi_pool", n * 3 * d)?, gpu.alloc("multi_pool", n * d)?);
        let NormalizedRows { rows, gamma, beta } = sequence.rows_for_scaling();
        let args = Forward {
            sequence: rows,
            gamma,
            beta,
            global: global.ptr(),
            offsets: op.sequences.offsets().on(gpu)?,
            out: out.ptr(),
            argmax: argmax.ptr(),
            d: d as i32,
            padding: 0,
        };
        launches[sequence.normalized().is_some() as usize].push(blocks(op, d), args, &[])?;
        let saved = DeviceSaved { argmax, normalized: sequence.normalized().is_some() };
        results.push((Tensor::on_device([n, 3 * d], out)?, Saved::Device(saved)));
    }
    launches.into_iter().try_for_each(Launches::run)?;
    Ok(results)
}

pub fn backward(gpu: &Gpu, reached: Vec<Reached<MultiPool>>, grads: &mut InstanceGrads) -> Result<()> {
    let mut launches = gpu.launches("multi_pool_backward", INSTANCES, THREADS);
    // As launches read it when they run.
    let mut kept = Vec::with_capacity(reached.len());
    for Reached { op, number, saved, grad } in reached {
        let Saved::Device(DeviceSaved { argmax, normalized }) = saved else { return Err(elsewhere(NAME)) };
        let (grad, mut grads) = (grad.array()?, grads.of(number));
        let d = grad.shape()[1] / 3;
        let dsequence = if normalized { Target::NULL } else { grads.on_device(0)? };
        let dglobal = grads.on_device(1)?;
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
        kept.push((number, grad.clone(), argmax, normalized));
    }
    launches.run()?;
    for (number, grad, argmax, _) in kept.into_iter().filter(|(.., normalized)| *normalized) {
        grads.of(number).leave(0, Part::Pooled(grad, argmax))?;
    }
    Ok(())
}
