//! Pooling (kernels/encoder_pool.cu).

use bytemuck::{Pod, Zeroable};

use super::super::{Grid, Ptr};
use super::{Element, Maps, Matrix, SequenceRows, Windows};
use crate::error::{Error, Result};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MaxPool {
    x: Ptr,
    out: Ptr,
    images: i32,
    height: i32,
    width: i32,
    channels: i32,
    out_height: i32,
    out_width: i32,
    size: i32,
    stride: i32,
    border: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Mean {
    x: Ptr,
    offsets: Ptr,
    out: Ptr,
    width: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct UnitLength {
    x: Ptr,
    rows: i32,
    width: i32,
}

fn fours(width: usize) -> Result<usize> {
    match width.is_multiple_of(4) {
        true => Ok(width / 4),
        false => Err(Error::shape("encoder_pool", format!("rows of {width}: must be a multiple of 4"))),
    }
}

impl Maps {
    /// The largest value of each channel in each window; what lies beyond the border counts as nothing.
    pub fn max_pool(&self, windows: Windows) -> Result<Maps> {
        let (channels, element) = (self.pixels.width(), self.pixels.element());
        let images = self.images();
        let (out_height, out_width) = windows.output(self.height, self.width)?;
        let count = images * out_height * out_width;
        let out = Matrix::alloc(self.pixels.gpu(), "activations", element, count, channels)?;
        let args = MaxPool {
            x: self.pixels.ptr(),
            out: out.ptr(),
            images: images as i32,
            height: self.height as i32,
            width: self.width as i32,
            channels: channels as i32,
            out_height: out_height as i32,
            out_width: out_width as i32,
            size: windows.size as i32,
            stride: windows.stride as i32,
            border: windows.border as i32,
            padding: 0,
        };
        let kernel = element.kernel("encoder_max_pool_bf16", "encoder_max_pool_f32");
        out.gpu().launch(kernel, Grid::values(count * fours(channels)?, 256), &args)?;
        Ok(Maps { pixels: out, height: out_height, width: out_width })
    }
}

/// The mean row of each sequence of f32; of an empty one, zeros.
pub fn mean(x: &Matrix, sequences: &SequenceRows) -> Result<Matrix> {
    let width = x.width_of("encoder_mean", Element::F32)?;
    if x.rows() != sequences.rows() {
        return Err(Error::shape("encoder_mean", format!("{} rows for {}", x.rows(), sequences.rows())));
    }
    let out = Matrix::alloc(x.gpu(), "activations", Element::F32, sequences.len(), width)?;
    let args = Mean { x: x.ptr(), offsets: sequences.offsets(), out: out.ptr(), width: width as i32, padding: 0 };
    let grid = Grid { blocks: [sequences.len(), fours(width)?.div_ceil(128), 1], threads: 128, shared: 0 };
    x.gpu().launch("encoder_mean", grid, &args)?;
    Ok(out)
}

/// Divides each row of f32 by its length.
pub fn unit_length(x: &mut Matrix) -> Result<()> {
    let width = x.width_of("encoder_unit_length", Element::F32)?;
    let args = UnitLength { x: x.ptr(), rows: x.rows() as i32, width: width as i32 };
    x.gpu().launch("encoder_unit_length", Grid::warps(x.rows()), &args)
}
