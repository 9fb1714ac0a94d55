//! Products with the windows of images, which are not in memory (kernels/convolution.cu).

use bytemuck::{Pod, Zeroable};

use super::Windows;
use super::tiled::{Finish, Output, THREADS, THREADS_F32, tile};
use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    image: Ptr,
    weight: Ptr,
    out: Output,
    height: i32,
    width: i32,
    channels: i32,
    out_height: i32,
    out_width: i32,
    rows: i32,
    columns: i32,
    down: i32,
    across: i32,
    border: i32,
}

/// The product of the windows of x (images · height · width, channels) with a weight (outputs, kernel · kernel ·
/// channels), the channel fastest, into `out` (images · windows, outputs). The kernels copy eight values at a time:
/// channels in bf16 are a multiple of 8, or of patches those of a row of pixels.
pub(super) fn launch(
    x: &Tensor,
    weight: &Tensor,
    windows: Windows,
    out: &Tensor,
    finish: Finish,
    (bias, residual): (Ptr, Ptr),
) -> Result<()> {
    let Windows { height, width, kernel, stride, padding } = windows;
    let (element, n, (down, across)) = (weight.element(), weight.count(), windows.size());
    let (m, needed) = (windows.count(x.count()), weight.width() / (kernel * kernel).max(1));
    let fits = (x.width(), x.element()) == (needed, element) && (out.count(), out.width()) == (m, n);
    // A row of a patch is as well one pixel of many channels.
    let patches = kernel == stride && padding == 0 && width.is_multiple_of(kernel);
    let fold = if patches { kernel } else { 1 };
    let channels = needed * fold;
    if !fits || (element == Element::Bf16 && !channels.is_multiple_of(8)) || i32::try_from(m).is_err() {
        let (rows, found, kind) = (x.count(), x.width(), x.element());
        let reason = format!(
            "({rows}, {found}) {kind:?} as images of {height} x {width}, needs {needed} channels of {element:?}; \
             ({}, {}) for an output of ({m}, {n})",
            out.count(),
            out.width()
        );
        return Err(Error::shape("convolution", reason));
    }
    let sums = (bias, residual, out.address());
    let args = Args {
        image: x.address(),
        weight: weight.address(),
        out: Output::new("convolution", (m, n), finish, sums, (n, n), out.element())?,
        height: height as i32,
        width: (width / fold) as i32,
        channels: channels as i32,
        out_height: down as i32,
        out_width: across as i32,
        rows: kernel as i32,
        columns: (kernel / fold) as i32,
        down: stride as i32,
        across: (stride / fold) as i32,
        border: padding as i32,
    };
    let gpu = x.device("convolution")?;
    let (side, shared) = tile(gpu, element, m, n)?;
    let (kernel, threads) = match (element, side) {
        (Element::F32, _) => ("convolution_f32", THREADS_F32),
        (Element::Bf16, 128) => ("convolution_128", THREADS),
        (Element::Bf16, _) => ("convolution_64", THREADS),
        (Element::F16, _) => return Err(Error::shape("convolution", "images of f16")),
    };
    let blocks = m.div_ceil(side) * n.div_ceil(side);
    gpu.launch(kernel, Grid { shared, ..Grid::line(blocks, threads) }, &args)
}
