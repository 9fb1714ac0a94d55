//! `adamw` on CUDA devices (kernels/adamw.cu).

use bytemuck::{Pod, Zeroable};

use super::{AdamW, Factors, Moments};
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr};
use crate::error::Result;
use crate::tensor::Tensor;

/// Threads of a block, and the values of a parameter beyond which they take more than one each.
const THREADS: u32 = 256;
const MOST_BLOCKS: usize = 512;

/// Parameters of a launch: the arguments of a kernel have 4 KB.
const TABLE: usize = 84;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Parameter {
    value: Ptr,
    grad: Ptr,
    first: Ptr,
    second: Ptr,
    /// Of the value in f16.
    copy: Ptr,
    length: i64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    parameters: [Parameter; TABLE],
    beta1: f32,
    beta2: f32,
    rate: f32,
    root: f32,
    eps: f32,
    keep: f32,
}

impl AdamW {
    pub(super) fn step_on(
        &self,
        gpu: &Gpu,
        Factors { rate, root, keep }: Factors,
        parameters: &mut [Tensor],
        grads: &[Tensor],
        moments: &mut [Moments],
    ) -> Result<()> {
        let (beta1, beta2) = self.betas;
        let mut args = Args { parameters: Zeroable::zeroed(), beta1, beta2, rate, root, eps: self.eps, keep };
        let tensors = parameters.chunks_mut(TABLE).zip(grads.chunks(TABLE)).zip(moments.chunks_mut(TABLE));
        for ((parameters, grads), moments) in tensors {
            let longest = parameters.iter().map(Tensor::len).max().unwrap_or(0);
            let count = parameters.len();
            let tensors = parameters.iter_mut().zip(grads).zip(moments);
            for (entry, ((parameter, grad), moments)) in args.parameters.iter_mut().zip(tensors) {
                let (value, copy) = parameter.both_mut()?;
                *entry = Parameter {
                    value,
                    grad: grad.ptr(),
                    first: moments.first.ptr_mut()?,
                    second: moments.second.ptr_mut()?,
                    copy: copy.unwrap_or(Ptr::NULL),
                    length: parameter.len() as i64,
                };
            }
            let blocks = [longest.div_ceil(THREADS as usize).min(MOST_BLOCKS), count, 1];
            gpu.launch("adamw", Grid { blocks, threads: THREADS, shared: 0 }, &args)?;
        }
        Ok(())
    }
}
