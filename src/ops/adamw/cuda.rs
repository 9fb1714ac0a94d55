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

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Parameter {
    value: Ptr,
    grad: Ptr,
    first: Ptr,
    second: Ptr,
    length: i64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    parameters: Ptr,
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
        let longest = parameters.iter().map(Tensor::len).max().unwrap_or(0);
        let mut table = Vec::with_capacity(parameters.len());
        for ((parameter, grad), moments) in parameters.iter_mut().zip(grads).zip(moments) {
            table.push(Parameter {
                value: parameter.ptr_mut()?,
                grad: grad.ptr(),
                first: moments.first.ptr_mut()?,
                second: moments.second.ptr_mut()?,
                length: parameter.len() as i64,
            });
        }
        let table = gpu.upload("table of parameters", &table)?;
        let (beta1, beta2) = self.betas;
        let args = Args { parameters: table.ptr(), beta1, beta2, rate, root, eps: self.eps, keep };
        let blocks = longest.div_ceil(THREADS as usize).min(MOST_BLOCKS);
        gpu.launch("adamw", Grid { blocks: [blocks, table.len(), 1], threads: THREADS, shared: 0 }, &args)
    }
}
