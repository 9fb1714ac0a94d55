//! On a device (kernels/rms_norm.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Matrix};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RmsNorm {
    x: Ptr,
    gain: Ptr,
    out: Ptr,
    width: i32,
    eps: f32,
}

impl Matrix {
    /// gain · x / sqrt(mean(x²) + eps), row by row, of f32 rows; as `element`. `gain` (width) f32.
    pub fn rms_norm(&self, gain: &DeviceBuffer<f32>, eps: f32, element: Element) -> Result<Matrix> {
        if self.element() != Element::F32 || gain.len() != self.width() {
            let reason = format!("{} gains for {:?} rows of {}", gain.len(), self.element(), self.width());
            return Err(Error::shape("rms_norm", reason));
        }
        let out = Matrix::chunked(self.gpu(), element, self.rows(), self.width())?;
        let args = RmsNorm { x: self.ptr(), gain: gain.ptr(), out: out.ptr(), width: self.width() as i32, eps };
        let kernel = element.choose(["rms_norm_f32", "rms_norm_bf16", "rms_norm_f16"]);
        self.gpu().launch(kernel, Grid::line(self.rows(), 256), &args)?;
        Ok(out)
    }
}
