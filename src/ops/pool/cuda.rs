//! Pooling (kernels/pool.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::ops::linear::Windows;
use crate::tensor::{Element, Sequences, Tensor, fours};

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

/// The largest value of each channel in each window of images (n · height · width, channels); what lies beyond the border
/// is left out.
pub fn max_pool(x: &Tensor, windows: Windows) -> Result<Tensor> {
    let Windows { height, width, kernel, stride, padding } = windows;
    let (gpu, channels, (down, across)) = (x.device("max_pool")?, x.width(), windows.size());
    let images = x.count() / (height * width).max(1);
    let out = Tensor::alloc(gpu, "activations", x.element(), [images * down * across, channels])?;
    let args = MaxPool {
        x: x.address(),
        out: out.address(),
        images: images as i32,
        height: height as i32,
        width: width as i32,
        channels: channels as i32,
        out_height: down as i32,
        out_width: across as i32,
        size: kernel as i32,
        stride: stride as i32,
        border: padding as i32,
        padding: 0,
    };
    let grid = Grid::values(out.count() * fours("max_pool", channels)?, 256);
    let kernel = match x.element() {
        Element::F32 => "max_pool_f32",
        Element::Bf16 => "max_pool_bf16",
        Element::F16 => return Err(Error::shape("max_pool", "images of f16")),
    };
    gpu.launch(kernel, grid, &args)?;
    Ok(out)
}

/// The mean row of each sequence of f32; of an empty one, zeros.
pub fn mean(x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    let (gpu, width) = (x.device("mean_pool")?, x.width_of("mean_pool", Element::F32)?);
    let (count, offsets) = (sequences.lengths().len(), sequences.on(gpu, x.count())?);
    let out = Tensor::alloc(gpu, "activations", Element::F32, [count, width])?;
    let args = Mean { x: x.ptr(), offsets, out: out.ptr(), width: width as i32, padding: 0 };
    let blocks = [count, fours("mean_pool", width)?.div_ceil(128), 1];
    gpu.launch("mean_pool", Grid { blocks, threads: 128, shared: 0 }, &args)?;
    Ok(out)
}
