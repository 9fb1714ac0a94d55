//! Layer normalization of wide rows (kernels/layer_norm_wide.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// The widest rows that the kernel takes: 64 values per lane of a warp.
const WIDEST: usize = 2048;

/// Rows of a block.
const BLOCK_ROWS: usize = 32;

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

/// Fails unless the kernel takes rows of this width.
pub fn check(width: usize) -> Result<()> {
    if width <= WIDEST && width.is_multiple_of(4) {
        return Ok(());
    }
    Err(Error::shape("layer_norm_wide", format!("width {width}: must be a multiple of 4, at most {WIDEST}")))
}

/// Rows x (n, width), f32, normalized, with gamma and beta (width); with `both` as f32 and beside it as bf16.
pub fn forward(x: &Tensor, [gamma, beta]: [&Tensor; 2], eps: f32, (output, both): (Element, bool)) -> Result<Tensor> {
    let (gpu, width) = (x.device("layer_norm_wide")?, x.width_of("layer_norm_wide", Element::F32)?);
    let rows_of = |element| Tensor::alloc(gpu, "activations", element, x.shape());
    let (out, beside) = (rows_of(output)?, if both { Some(rows_of(Element::Bf16)?) } else { None });
    let [wide, narrow] = match output {
        Element::F32 => [out.address(), beside.as_ref().map_or(Ptr::NULL, Tensor::address)],
        Element::Bf16 => [Ptr::NULL, out.address()],
        Element::F16 => return Err(Error::shape("layer_norm_wide", "rows of f16")),
    };
    let (gamma, beta, rows) = (gamma.ptr(), beta.ptr(), x.count() as i32);
    let args = Args { x: x.ptr(), gamma, beta, wide, narrow, rows, width: width as i32, eps, padding: 0 };
    let grid = Grid { shared: 8 * width as u32, ..Grid::line(x.count().div_ceil(BLOCK_ROWS), 256) };
    gpu.launch("layer_norm_wide", grid, &args)?;
    Ok(match beside {
        Some(narrow) => out.beside(narrow),
        None => out,
    })
}
