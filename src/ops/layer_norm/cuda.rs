//! Layer normalization (kernels/layer_norm.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Target};
use crate::error::{Error, Result};
use crate::ops::reduce::Sums;

/// The widest rows that the kernels take: eight values per lane of a warp.
pub const WIDEST: usize = 256;

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

/// The output, and what backward needs.
pub struct Normalized {
    pub out: DeviceBuffer<f32>,
    pub xhat: DeviceBuffer<f32>,
    pub rstd: DeviceBuffer<f32>,
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
    stride: i32,
    rows_per_block: i32,
}

impl LayerNorm {
    /// Fails if rows are wider than the kernels take.
    pub fn check(d: usize) -> Result<()> {
        if d <= WIDEST {
            return Ok(());
        }
        Err(Error::invalid(format!("d = {d} exceeds {WIDEST}, the most that the CUDA kernels take; use --device cpu")))
    }

    /// x (rows, d), to which `residual` is added first.
    pub fn forward(&self, gpu: &Gpu, x: Ptr, rows: usize, residual: Option<Residual>) -> Result<Normalized> {
        let result = Normalized::alloc(gpu, rows, self.d)?;
        let Residual { rows: residual, row: residual_row } =
            residual.unwrap_or(Residual { rows: Ptr::NULL, row: Ptr::NULL });
        let args = Forward {
            x,
            residual,
            residual_row,
            gamma: self.gamma,
            beta: self.beta,
            xhat: result.xhat.ptr(),
            out: result.out.ptr(),
            rstd: result.rstd.ptr(),
            rows: rows as i32,
            d: self.d as i32,
            eps: self.eps,
            padding: 0,
        };
        gpu.launch("layer_norm_forward", Grid::warps(rows), &args)?;
        Ok(result)
    }

    /// dx (rows, d) as f32; adds to the sums when `sums` runs.
    pub fn backward(
        &self,
        gpu: &Gpu,
        dy: Ptr,
        (xhat, rstd): (&DeviceBuffer<f32>, &DeviceBuffer<f32>),
        (to, sums): (NormalizedBackward, &mut Sums),
    ) -> Result<DeviceBuffer<f32>> {
        let dx = gpu.alloc("gradients of normalized rows", xhat.len())?;
        self.run_backward(gpu, "layer_norm_backward_f32", (dy, dx.ptr(), self.d), (xhat, rstd), (to, sums))?;
        Ok(dx)
    }

    /// dx as bf16 in rows of a multiple of 8 values, the last of them zero; adds to the sums when `sums` runs.
    pub fn backward_bf16(
        &self,
        gpu: &Gpu,
        dy: Ptr,
        (xhat, rstd): (&DeviceBuffer<f32>, &DeviceBuffer<f32>),
        (to, sums): (NormalizedBackward, &mut Sums),
    ) -> Result<(DeviceBuffer<u16>, usize)> {
        let stride = self.d.next_multiple_of(8);
        let dx = gpu.alloc("gradients of normalized rows", rstd.len() * stride)?;
        self.run_backward(gpu, "layer_norm_backward_bf16", (dy, dx.ptr(), stride), (xhat, rstd), (to, sums))?;
        Ok((dx, stride))
    }

    fn run_backward(
        &self,
        gpu: &Gpu,
        kernel: &'static str,
        (dy, dx, stride): (Ptr, Ptr, usize),
        (xhat, rstd): (&DeviceBuffer<f32>, &DeviceBuffer<f32>),
        (to, sums): (NormalizedBackward, &mut Sums),
    ) -> Result<()> {
        let (rows, d) = (rstd.len(), self.d);
        let blocks = rows.div_ceil(ROWS_PER_BLOCK);
        let partial = gpu.alloc::<f32>("partial sums", blocks * 3 * d)?;
        let args = Backward {
            dy,
            xhat: xhat.ptr(),
            rstd: rstd.ptr(),
            gamma: self.gamma,
            dx,
            partial: partial.ptr(),
            rows: rows as i32,
            d: d as i32,
            stride: stride as i32,
            rows_per_block: ROWS_PER_BLOCK as i32,
        };
        gpu.launch(kernel, Grid::line(blocks, 128), &args)?;
        sums.add_three(partial, blocks, d, [to.gamma, to.beta, to.bias])
    }
}

impl Normalized {
    /// Room for the results of `rows` rows.
    pub fn alloc(gpu: &Gpu, rows: usize, d: usize) -> Result<Normalized> {
        let values = |label| gpu.alloc(label, rows * d);
        Ok(Normalized {
            out: values("normalized rows")?,
            xhat: values("rows for backward")?,
            rstd: gpu.alloc("deviations", rows)?,
        })
    }
}
