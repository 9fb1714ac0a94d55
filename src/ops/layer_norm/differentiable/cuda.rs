//! `layer_norm` with gradients on CUDA devices (kernels/layer_norm.cu, layer_norm_rows.cu).

use bytemuck::{Pod, Zeroable};

use super::LayerNorm;
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Target};
use crate::error::Result;
use crate::ops::layer_norm::{Gradient, LayerNorm as Narrow, Normalized, NormalizedBackward, ToNormalize};
use crate::ops::reduce::Sums;
use crate::tensor::{Element, Tensor};

/// Rows that one block of the sums over rows takes.
const ROWS_PER_BLOCK: usize = 64;

/// What backward needs.
pub struct Saved {
    weight: Tensor,
    bias: Tensor,
    xhat: Tensor,
    rstd: DeviceBuffer<f32>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    x: Ptr,
    gamma: Ptr,
    beta: Ptr,
    xhat: Ptr,
    out: Ptr,
    rstd: Ptr,
    rows: i32,
    d: i32,
    eps: f32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    dy: Ptr,
    xhat: Ptr,
    rstd: Ptr,
    gamma: Ptr,
    dx: Ptr,
    partial: Ptr,
    rows: i32,
    d: i32,
    rows_per_block: i32,
    adds: i32,
}

impl LayerNorm {
    /// The kernels that keep a row in registers, if rows are not too wide for them.
    fn narrow(&self, weight: &Tensor, bias: &Tensor) -> Option<Narrow> {
        let d = weight.len();
        Narrow::check(d).ok().map(|()| Narrow { gamma: weight.ptr(), beta: bias.ptr(), eps: self.eps, d })
    }

    pub(super) fn forward_on(&self, gpu: &Gpu, [x, weight, bias]: [&Tensor; 3]) -> Result<(Tensor, Saved)> {
        let (n, d) = (x.shape()[0], weight.len());
        let rows = self.narrow(weight, bias).map(|norm| ToNormalize { norm, x: x.ptr(), rows: n, residual: None });
        let Normalized { out, xhat, rstd } = match Narrow::forward(gpu, rows.as_slice())?.pop() {
            Some(result) => result,
            None => {
                let result = Normalized::alloc(gpu, [n, d], Element::F32)?;
                let args = Forward {
                    x: x.ptr(),
                    gamma: weight.ptr(),
                    beta: bias.ptr(),
                    xhat: result.xhat.ptr(),
                    out: result.out.ptr(),
                    rstd: result.rstd.ptr(),
                    rows: n as i32,
                    d: d as i32,
                    eps: self.eps,
                    padding: 0,
                };
                gpu.launch("layer_norm_rows_forward", Grid::warps(n), &args)?;
                result
            }
        };
        Ok((Tensor::on_device([n, d], out)?, Saved { weight: weight.clone(), bias: bias.clone(), xhat, rstd }))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: &Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let [dx, gamma, beta] = [grads.on_device(0)?, grads.on_device(1)?, grads.on_device(2)?];
        let mut sums = gpu.sums();
        match self.narrow(&saved.weight, &saved.bias) {
            Some(norm) => {
                let (n, d, Saved { xhat, rstd, .. }) = (saved.rstd.len(), norm.d, saved);
                let to = NormalizedBackward { gamma, beta, bias: Target::NULL };
                let rows_dx = Narrow::backward(gpu, &[Gradient { norm, dy: grad.ptr(), xhat, rstd, to }], &mut sums)?;
                if let Some(rows_dx) = rows_dx.first().filter(|_| !dx.is_null()) {
                    // Each row is a group of its own.
                    let counting = gpu.counting(n + 1)?;
                    let mut groups = gpu.group_sums();
                    groups.add(rows_dx.ptr(), d, (counting, counting), n, dx)?;
                    groups.run()?;
                }
            }
            None => saved.backward_wide(gpu, grad, (dx, [gamma, beta]), &mut sums)?,
        }
        sums.run()
    }
}

impl Saved {
    fn backward_wide(
        &self,
        gpu: &Gpu,
        grad: &Tensor,
        (dx, [gamma, beta]): (Target, [Target; 2]),
        sums: &mut Sums,
    ) -> Result<()> {
        let (n, d) = (self.rstd.len(), self.weight.len());
        let blocks = n.div_ceil(ROWS_PER_BLOCK);
        let partial = gpu.alloc::<f32>("partial sums", blocks * 3 * d)?;
        let args = Backward {
            dy: grad.ptr(),
            xhat: self.xhat.ptr(),
            rstd: self.rstd.ptr(),
            gamma: self.weight.ptr(),
            dx: dx.at,
            partial: partial.ptr(),
            rows: n as i32,
            d: d as i32,
            rows_per_block: ROWS_PER_BLOCK as i32,
            adds: dx.adds as i32,
        };
        if !dx.is_null() {
            gpu.launch("layer_norm_rows_backward", Grid::warps(n), &args)?;
        }
        let grid = Grid { blocks: [d.div_ceil(128), blocks, 1], threads: 128, shared: 0 };
        gpu.launch("layer_norm_rows_sums", grid, &args)?;
        sums.add_three(partial, blocks, d, [gamma, beta, Target::NULL]);
        Ok(())
    }
}
