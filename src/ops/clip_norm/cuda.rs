//! `clip_norm` on CUDA devices (kernels/clip_norm.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr};
use crate::error::Result;
use crate::tensor::Tensor;

/// Threads of a block, and blocks of a gradient.
const THREADS: u32 = 256;
const PARTS: usize = 64;

/// Gradients of a launch: the arguments of a kernel have 4 KB.
const TABLE: usize = 96;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Gradient {
    values: Ptr,
    length: i64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    gradients: [Gradient; TABLE],
    sums: Ptr,
    total: Ptr,
    most: f32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Total {
    sums: Ptr,
    total: Ptr,
    n: i32,
    padding: i32,
}

/// Clips, and gives the length (1) that the gradients had.
pub(super) fn clip(gpu: &Gpu, grads: &mut [Tensor], most: f32) -> Result<Tensor> {
    let sums = gpu.alloc::<f32>("lengths of gradients", grads.len() * PARTS)?;
    let total = gpu.alloc::<f32>("lengths of gradients", 1)?;
    let mut launches = Vec::new();
    for (at, grads) in grads.chunks_mut(TABLE).enumerate() {
        let sums = sums.ptr().offset::<f32>(at * TABLE * PARTS);
        let mut args = Args { gradients: Zeroable::zeroed(), sums, total: total.ptr(), most, padding: 0 };
        for (entry, grad) in args.gradients.iter_mut().zip(grads.iter_mut()) {
            *entry = Gradient { values: grad.ptr_mut()?, length: grad.len() as i64 };
        }
        launches.push((args, Grid { blocks: [PARTS, grads.len(), 1], threads: THREADS, shared: 0 }));
    }
    launches.iter().try_for_each(|(args, grid)| gpu.launch("clip_norm_squares", *grid, args))?;
    let n = (grads.len() * PARTS) as i32;
    let args = Total { sums: sums.ptr(), total: total.ptr(), n, padding: 0 };
    gpu.launch("clip_norm_total", Grid::line(1, THREADS), &args)?;
    launches.iter().try_for_each(|(args, grid)| gpu.launch("clip_norm_scale", *grid, args))?;
    Tensor::on_device([1], total)
}
