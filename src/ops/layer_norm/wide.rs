//! Layer normalization of wide rows (kernels/layer_norm_wide.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Matrix};

/// The widest rows that the kernel takes: 64 values per lane of a warp.
const WIDEST: usize = 2048;

/// Rows of a block.
const BLOCK_ROWS: usize = 32;

/// Layer normalization for inference, with its parameters (width) in device memory.
pub struct DeviceNorm {
    gamma: DeviceBuffer<f32>,
    beta: DeviceBuffer<f32>,
    eps: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    x: Ptr,
    gamma: Ptr,
    beta: Ptr,
    wide: Ptr,
    narrow: Ptr,
    rows: i32,
    width: i32,
    eps: f32,
    padding: i32,
}

impl DeviceNorm {
    /// Copies the parameters to a device.
    pub fn new(gpu: &Gpu, gamma: &[f32], beta: &[f32], eps: f32) -> Result<DeviceNorm> {
        let width = gamma.len();
        if width > WIDEST || !width.is_multiple_of(4) || beta.len() != width {
            let reason = format!("width {width}: must be a multiple of 4, at most {WIDEST}");
            return Err(Error::shape("layer_norm_wide", reason));
        }
        Ok(DeviceNorm { gamma: gpu.upload("weights", gamma)?, beta: gpu.upload("weights", beta)?, eps })
    }

    /// The rows of x (n, width), f32, normalized.
    pub fn forward(&self, x: &Matrix, output: Element) -> Result<Matrix> {
        let out = self.output(x, output)?;
        let [wide, narrow] = match output {
            Element::F32 => [out.ptr(), Ptr::NULL],
            Element::Bf16 => [Ptr::NULL, out.ptr()],
            Element::F16 => return Err(Error::shape("layer_norm_wide", "rows of f16")),
        };
        self.launch(x, wide, narrow)?;
        Ok(out)
    }

    /// The same as f32 and as bf16, for rows that are both a residual and an operand.
    pub fn forward_both(&self, x: &Matrix) -> Result<(Matrix, Matrix)> {
        let (wide, narrow) = (self.output(x, Element::F32)?, self.output(x, Element::Bf16)?);
        self.launch(x, wide.ptr(), narrow.ptr())?;
        Ok((wide, narrow))
    }

    fn output(&self, x: &Matrix, element: Element) -> Result<Matrix> {
        let width = x.width_of("layer_norm_wide", Element::F32)?;
        if width != self.gamma.len() {
            return Err(Error::shape("layer_norm_wide", format!("rows of {width}, needs {}", self.gamma.len())));
        }
        Matrix::alloc(x.gpu(), "activations", element, x.rows(), width)
    }

    fn launch(&self, x: &Matrix, wide: Ptr, narrow: Ptr) -> Result<()> {
        let (gamma, beta) = (self.gamma.ptr(), self.beta.ptr());
        let (rows, width) = (x.rows() as i32, x.width() as i32);
        let args = Args { x: x.ptr(), gamma, beta, wide, narrow, rows, width, eps: self.eps, padding: 0 };
        let grid = Grid { shared: 8 * width as u32, ..Grid::line(x.rows().div_ceil(BLOCK_ROWS), 256) };
        x.gpu().launch("layer_norm_wide", grid, &args)
    }
}
