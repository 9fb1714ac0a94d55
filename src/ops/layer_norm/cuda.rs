//! Layer normalization (kernels/layer_norm.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{Arithmetic, DeviceBuffer, Ptr, Target};
use crate::error::{Error, Result};
use crate::ops::reduce::Sums;
use crate::tensor::{Element, Tensor};

/// The widest rows that the kernels take: eight values per lane of a warp.
pub const WIDEST: usize = 256;

/// The most instances of a launch.
const INSTANCES: usize = 16;

/// Rows of a block of forward, one to a warp.
const WARPS: usize = 4;

/// Rows that one block of backward takes.
pub(super) const ROWS_PER_BLOCK: usize = 64;

/// Weights (d) and epsilon.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    pub gamma: Ptr,
    pub beta: Ptr,
    pub eps: f32,
    pub d: usize,
}

/// What is added to each row before: row `row[i]` of `rows` to row i.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    pub rows: Ptr,
    pub row: Ptr,
}

/// Rows to normalize.
#[derive(Clone, Copy, Debug)]
pub struct ToNormalize {
    pub norm: LayerNorm,
    /// (rows, d)
    pub x: Ptr,
    pub rows: usize,
    /// What is added to each first.
    pub residual: Option<Residual>,
}

/// The output, and what backward needs.
pub struct Normalized {
    pub out: DeviceBuffer<f32>,
    /// Rows before scale and shift (rows, d).
    pub xhat: Tensor,
    pub rstd: DeviceBuffer<f32>,
}

/// Normalized rows, of which the gradient is known.
#[derive(Clone, Copy)]
pub struct Gradient<'a> {
    pub norm: LayerNorm,
    /// (rows, d)
    pub dy: Ptr,
    pub xhat: &'a Tensor,
    pub rstd: &'a DeviceBuffer<f32>,
    pub to: NormalizedBackward,
}

/// Where the sums of backward go, or null.
#[derive(Clone, Copy, Debug)]
pub struct NormalizedBackward {
    pub gamma: Target,
    pub beta: Target,
    /// Σ rows of dx: the gradient of a bias before the normalization.
    pub bias: Target,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    x: Ptr,
    residual: Ptr,
    residual_row: Ptr,
    gamma: Ptr,
    beta: Ptr,
    xhat: Ptr,
    out: Ptr,
    rstd: Ptr,
    rows: i32,
    d: i32,
    eps: f32,
    narrow: i32,
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
    stride: i32,
    rows_per_block: i32,
    narrow: i32,
    padding: i32,
}

impl LayerNorm {
    /// Fails if rows are wider than the kernels take.
    pub fn check(d: usize) -> Result<()> {
        if d <= WIDEST {
            return Ok(());
        }
        Err(Error::invalid(format!("d = {d} exceeds {WIDEST}, the most that the CUDA kernels take; use --device cpu")))
    }

    /// Rows of each, all at once. Beside products on tensor cores, which round as much, what backward needs is kept in f16.
    pub fn forward(gpu: &Gpu, of: &[ToNormalize]) -> Result<Vec<Normalized>> {
        let kept = if gpu.arithmetic() == Arithmetic::F32 { Element::F32 } else { Element::F16 };
        let mut launches = gpu.launches("layer_norm_forward", INSTANCES, 128);
        let mut results = Vec::with_capacity(of.len());
        for &ToNormalize { norm, x, rows, residual } in of {
            let result = Normalized::alloc(gpu, [rows, norm.d], kept)?;
            let Residual { rows: residual, row: residual_row } =
                residual.unwrap_or(Residual { rows: Ptr::NULL, row: Ptr::NULL });
            let args = Forward {
                x,
                residual,
                residual_row,
                gamma: norm.gamma,
                beta: norm.beta,
                xhat: result.xhat.address(),
                out: result.out.ptr(),
                rstd: result.rstd.ptr(),
                rows: rows as i32,
                d: norm.d as i32,
                eps: norm.eps,
                narrow: i32::from(kept == Element::F16),
            };
            launches.push(rows.div_ceil(WARPS), args, &[])?;
            results.push(result);
        }
        launches.run()?;
        Ok(results)
    }

    /// dx (rows, d) of each as f32, all at once; adds to the sums when `sums` runs.
    pub fn backward(gpu: &Gpu, of: &[Gradient], sums: &mut Sums) -> Result<Vec<DeviceBuffer<f32>>> {
        let alloc = |gradient: &Gradient| gpu.alloc("gradients of normalized rows", gradient.xhat.len());
        let dx: Vec<DeviceBuffer<f32>> = of.iter().map(alloc).collect::<Result<_>>()?;
        let to = of.iter().zip(&dx).map(|(gradient, dx)| (dx.ptr(), gradient.norm.d));
        run_backward(gpu, "layer_norm_backward_f32", of, to, sums)?;
        Ok(dx)
    }

    /// The same as bf16 in rows of [`LayerNorm::stride`] values, those beyond d zero.
    pub fn backward_bf16(gpu: &Gpu, of: &[Gradient], sums: &mut Sums) -> Result<Vec<DeviceBuffer<u16>>> {
        let stride = |gradient: &Gradient| gradient.norm.stride();
        let alloc = |of: &Gradient| gpu.alloc("gradients of normalized rows", of.rstd.len() * stride(of));
        let dx: Vec<DeviceBuffer<u16>> = of.iter().map(alloc).collect::<Result<_>>()?;
        let to = of.iter().zip(&dx).map(|(gradient, dx)| (dx.ptr(), stride(gradient)));
        run_backward(gpu, "layer_norm_backward_bf16", of, to, sums)?;
        Ok(dx)
    }

    /// Values of a row of gradients in bf16: a multiple of 8.
    pub fn stride(&self) -> usize {
        self.d.next_multiple_of(8)
    }
}

/// `to` is where the gradients of each go, and the values of a row of them.
fn run_backward(
    gpu: &Gpu,
    kernel: &'static str,
    of: &[Gradient],
    to: impl Iterator<Item = (Ptr, usize)>,
    sums: &mut Sums,
) -> Result<()> {
    let mut launches = gpu.launches(kernel, INSTANCES, 128);
    for (&Gradient { norm, dy, xhat, rstd, to }, (dx, stride)) in of.iter().zip(to) {
        let (rows, d) = (rstd.len(), norm.d);
        let blocks = rows.div_ceil(ROWS_PER_BLOCK);
        let partial = gpu.alloc::<f32>("partial sums", blocks * 3 * d)?;
        let args = Backward {
            dy,
            xhat: xhat.address(),
            rstd: rstd.ptr(),
            gamma: norm.gamma,
            dx,
            partial: partial.ptr(),
            rows: rows as i32,
            d: d as i32,
            stride: stride as i32,
            rows_per_block: ROWS_PER_BLOCK as i32,
            narrow: i32::from(xhat.element() == Element::F16),
            padding: 0,
        };
        launches.push(blocks, args, &[])?;
        sums.add_three(partial, blocks, d, [to.gamma, to.beta, to.bias]);
    }
    launches.run()
}

impl Normalized {
    /// Room for the results of rows (rows, d), of which backward needs those of this type.
    pub fn alloc(gpu: &Gpu, [rows, d]: [usize; 2], kept: Element) -> Result<Normalized> {
        Ok(Normalized {
            out: gpu.alloc("normalized rows", rows * d)?,
            xhat: Tensor::alloc(gpu, "normalized rows", kept, [rows, d])?,
            rstd: gpu.alloc("deviations", rows)?,
        })
    }
}
