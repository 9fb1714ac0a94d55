//! Windows of images as rows, for convolutions and pooling with gradients: on the host, and on devices (kernels/windows.cu).

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cpu::{simd, vector};
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::{Error, Result};
use crate::ops::elementwise;
use crate::ops::linear::Windows;

/// How many images these rows of pixels are, at least one. Fails if they are no whole images, if an image is smaller than a window,
/// if a window may lie beside the image, or if there are more pixels or windows than a kernel counts.
pub fn images(op: &'static str, windows: Windows, pixels: usize) -> Result<usize> {
    let Windows { height, width, kernel, padding, .. } = windows;
    let (down, across) = windows.size();
    let images = pixels / (height * width).max(1);
    let whole = images > 0 && images * height * width == pixels;
    let counted = [pixels, images * down * across].into_iter().all(|rows| i32::try_from(rows).is_ok());
    if !whole || down * across == 0 || padding >= kernel || !counted {
        return Err(Error::shape(
            op,
            format!("{pixels} rows of pixels, needs images for {windows:?}, at most 2^31 of each"),
        ));
    }
    Ok(images)
}

/// The windows that hold place `at` of one of an image's sides, of which there are `count`.
pub fn over(Windows { kernel, stride, padding, .. }: Windows, at: usize, count: usize) -> Range<usize> {
    let place = at + padding;
    let first = place.checked_sub(kernel).map_or(0, |before| before / stride + 1);
    first..(place / stride + 1).min(count)
}

/// Pixels that an image's windows hold, each as often as a window does.
pub fn held(windows: Windows) -> usize {
    let (down, across) = windows.size();
    let of = |side: usize, count: usize| (0..side).map(|at| over(windows, at, count).len()).sum::<usize>();
    of(windows.height, down) * of(windows.width, across)
}

/// `rows` (n · windows, kernel² · channels), the channel fastest, of images `x` (n, height, width, channels); zeros where a window
/// reaches beyond its image.
pub fn unfold(rows: &mut [f32], x: &[f32], windows: Windows, channels: usize) {
    let (Windows { height, width, kernel, stride, padding }, (down, across)) = (windows, windows.size());
    elementwise::rows(rows, kernel * kernel * channels, |window, row| {
        let (image, y, x_at) = (window / (down * across), window / across % down, window % across);
        for (tap, to) in row.chunks_exact_mut(channels).enumerate() {
            let inside = |first: usize, tap: usize, end: usize| {
                (first * stride + tap).checked_sub(padding).filter(|&at| at < end)
            };
            match (inside(y, tap / kernel, height), inside(x_at, tap % kernel, width)) {
                (Some(y), Some(x_at)) => {
                    to.copy_from_slice(&x[((image * height + y) * width + x_at) * channels..][..channels])
                }
                _ => to.fill(0.0),
            }
        }
    });
}

/// Adds to each pixel of `images` (n, height, width, channels) its values in all `rows`, in the order of the windows.
pub fn fold(images: &mut [f32], rows: &[f32], windows: Windows, channels: usize) {
    let (Windows { kernel, stride, padding, .. }, area) = (windows, windows.kernel * windows.kernel);
    each_pixel(images, windows, channels, |_, to, around| {
        simd!(for (window, (y, i), (x, j)) in around {
            let tap = (y + padding - i * stride) * kernel + x + padding - j * stride;
            vector::add(to, &rows[(window * area + tap) * channels..][..channels]);
        });
    });
}

/// A window's number among all, and for both sides the pixel's place and the window's.
type Around = (usize, (usize, usize), (usize, usize));

/// Calls `f` with the number of each pixel, its values and the windows that it is in, in order.
pub fn each_pixel(
    images: &mut [f32],
    windows: Windows,
    channels: usize,
    f: impl Fn(usize, &mut [f32], &mut dyn Iterator<Item = Around>) + Sync,
) {
    let (Windows { height, width, .. }, (down, across)) = (windows, windows.size());
    elementwise::rows(images, channels, |pixel, to| {
        let (image, y, x) = (pixel / (height * width), pixel / width % height, pixel % width);
        let lines = over(windows, y, down);
        let mut around = lines.flat_map(|i| {
            let first = (image * down + i) * across;
            over(windows, x, across).map(move |j| (first + j, (y, i), (x, j)))
        });
        f(pixel, to, &mut around);
    });
}

/// The argument of all kernels.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    from: Ptr,
    to: Ptr,
    rows: Ptr,
    height: i32,
    width: i32,
    channels: i32,
    out_height: i32,
    out_width: i32,
    size: i32,
    stride: i32,
    border: i32,
    adds: i32,
    padding: i32,
}

/// Runs a kernel of kernels/windows.cu with as many blocks; `rows` are those of maxima.
pub fn launch(
    gpu: &Gpu,
    kernel: &'static str,
    (windows, channels): (Windows, usize),
    blocks: usize,
    (from, to, rows): (Ptr, Target, Ptr),
) -> Result<()> {
    let (Windows { height, width, kernel: size, stride, padding: border }, (down, across)) = (windows, windows.size());
    let args = Args {
        from,
        to: to.at,
        rows,
        height: height as i32,
        width: width as i32,
        channels: channels as i32,
        out_height: down as i32,
        out_width: across as i32,
        size: size as i32,
        stride: stride as i32,
        border: border as i32,
        adds: to.adds as i32,
        padding: 0,
    };
    gpu.launch(kernel, Grid::line(blocks, 128), &args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_gets_back_as_often_what_it_gave_as_windows_hold_it() {
        for (height, width, kernel, stride, padding) in
            [(4, 5, 3, 1, 1), (5, 4, 3, 2, 1), (6, 7, 7, 2, 3), (3, 3, 1, 2, 0)]
        {
            let windows = Windows { height, width, kernel, stride, padding };
            let (channels, (down, across)) = (2, windows.size());
            let images: Vec<f32> = (1..=2 * height * width * channels).map(|i| i as f32).collect();
            let mut rows = vec![f32::NAN; 2 * down * across * kernel * kernel * channels];
            unfold(&mut rows, &images, windows, channels);
            assert_eq!(rows.iter().filter(|x| **x != 0.0).count(), 2 * channels * held(windows), "{windows:?}");
            let mut back = vec![0.0; images.len()];
            fold(&mut back, &rows, windows, channels);
            for (at, (back, x)) in back.iter().zip(&images).enumerate() {
                let (y, x_at) = (at / channels / width % height, at / channels % width);
                let times = over(windows, y, down).len() * over(windows, x_at, across).len();
                assert_eq!(*back, times as f32 * x, "{windows:?}, value {at}");
            }
        }
    }
}
