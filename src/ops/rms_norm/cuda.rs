//! On a device (kernels/rms_norm.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::cuda::{Grid, Ptr};
use crate::error::Result;
use crate::tensor::{Element, Tensor};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RmsNorm {
    x: Ptr,
    gain: Ptr,
    out: Ptr,
    width: i32,
    eps: f32,
}

/// gain · x / sqrt(mean(x²) + eps), row by row, of f32 rows of the gain's width; as `element`.
pub fn forward(x: &Tensor, gain: &Tensor, eps: f32, element: Element) -> Result<Tensor> {
    let (gpu, width) = (x.device("rms_norm")?, x.width_of("rms_norm", Element::F32)?);
    let out = Tensor::chunked(gpu, element, [x.count(), width])?;
    let args = RmsNorm { x: x.ptr(), gain: gain.ptr(), out: out.address(), width: width as i32, eps };
    let kernel = element.choose(["rms_norm_f32", "rms_norm_bf16", "rms_norm_f16"]);
    gpu.launch(kernel, Grid::line(x.count(), 256), &args)?;
    Ok(out)
}
