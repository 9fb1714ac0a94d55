//! Layer normalization of wide rows (kernels/encoder_layer_norm.cu).

use bytemuck::{Pod, Zeroable};

use super::super::{DeviceBuffer, Gpu, Grid, Ptr};
use super::{Element, Matrix};
use crate::error::{Error, Result};

/// The widest rows that the kernels take: 64 values per lane of a warp.
pub const WIDEST: usize = 2048;

/// Rows of a block.
const BLOCK_ROWS: usize = 32;

/// Layer normalization for inference, with its parameters (width) in device memory.
pub struct Norm {
    gamma: DeviceBuffer<f32>,
    beta: DeviceBuffer<f32>,
    eps: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    x: Ptr,
    from: Ptr,
    gamma: Ptr,
    beta: Ptr,
    out: Ptr,
    rows: i32,
    width: i32,
    eps: f32,
    padding: i32,
}

impl Norm {
    /// Copies the parameters to a device.
    pub fn new(gpu: &Gpu, gamma: &[f32], beta: &[f32], eps: f32) -> Result<Norm> {
        let width = gamma.len();
        if width > WIDEST || !width.is_multiple_of(4) || beta.len() != width {
            let reason = format!("width {width}: must be a multiple of 4, at most {WIDEST}; use --device cpu");
            return Err(Error::shape("encoder_layer_norm", reason));
        }
        Ok(Norm { gamma: gpu.upload("weights", gamma)?, beta: gpu.upload("weights", beta)?, eps })
    }

    /// The rows of x (n, width), f32, normalized.
    pub fn forward(&self, x: &Matrix, output: Element) -> Result<Matrix> {
        self.launch(x, (Ptr::NULL, x.rows()), output)
    }

    /// The rows of x of these numbers, normalized; they must be below x's number of rows.
    pub fn forward_rows(&self, x: &Matrix, rows: &DeviceBuffer<u32>, output: Element) -> Result<Matrix> {
        self.launch(x, (rows.ptr(), rows.len()), output)
    }

    fn launch(&self, x: &Matrix, (from, rows): (Ptr, usize), output: Element) -> Result<Matrix> {
        let width = x.width_of("encoder_layer_norm", Element::F32)?;
        if width != self.gamma.len() {
            return Err(Error::shape("encoder_layer_norm", format!("rows of {width}, needs {}", self.gamma.len())));
        }
        let out = Matrix::alloc(x.gpu(), "activations", output, rows, width)?;
        let args = Args {
            x: x.ptr(),
            from,
            gamma: self.gamma.ptr(),
            beta: self.beta.ptr(),
            out: out.ptr(),
            rows: rows as i32,
            width: width as i32,
            eps: self.eps,
            padding: 0,
        };
        let kernel = output.kernel("encoder_layer_norm_bf16", "encoder_layer_norm_f32");
        let grid = Grid { shared: 8 * width as u32, ..Grid::line(rows.div_ceil(BLOCK_ROWS), 256) };
        x.gpu().launch(kernel, grid, &args)?;
        Ok(out)
    }
}
