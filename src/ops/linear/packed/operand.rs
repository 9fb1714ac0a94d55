//! The left operand of a product, which is read a block of rows at a time: rows as they lie, or the windows that a
//! convolution moves over images.

use std::ops::Range;

use half::bf16;

use super::Value;
use crate::device::cpu::simd;

/// Windows of `kernel` x `kernel` pixels over images that lie row by row, each pixel's channels together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Pixels of an image, downwards and across.
    pub height: usize,
    pub width: usize,
    /// Pixels of a window, in both directions.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Pixels of zero around the image.
    pub padding: usize,
}

impl Windows {
    /// Windows of an image, downwards and across. None, if the image is smaller than a window.
    pub fn size(&self) -> (usize, usize) {
        let count = |pixels: usize| match (pixels + 2 * self.padding).checked_sub(self.kernel) {
            Some(room) if self.stride > 0 => room / self.stride + 1,
            _ => 0,
        };
        (count(self.height), count(self.width))
    }

    /// Windows of images that have so many pixels in all.
    pub fn count(&self, pixels: usize) -> usize {
        let (down, across) = self.size();
        pixels / (self.height * self.width).max(1) * down * across
    }

    /// Whether each window is one pixel, and each pixel one window.
    pub fn are_pixels(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }
}

/// Rows of a left operand, row-major.
#[derive(Clone, Copy)]
pub struct Operand<'a, T> {
    values: &'a [T],
    /// Of a row, or of a pixel.
    width: usize,
    windows: Option<Windows>,
}

impl<'a, T: Value> Operand<'a, T> {
    /// Rows of `width` values.
    pub fn new(values: &'a [T], width: usize) -> Operand<'a, T> {
        Operand { values, width, windows: None }
    }

    /// A row for each window of images (n, height, width, channels): its pixels row by row, each with all its channels.
    pub fn windows(values: &'a [T], channels: usize, windows: Windows) -> Operand<'a, T> {
        Operand { values, width: channels, windows: (!windows.are_pixels()).then_some(windows) }
    }

    /// Number of rows and of values in each; `None` if the last row or image is not whole.
    pub fn size(&self) -> Option<(usize, usize)> {
        let (unit, rows, width) = match self.windows {
            None => (self.width, 1, self.width),
            Some(w) => {
                let (down, across) = w.size();
                (w.height * w.width * self.width, down * across, w.kernel * w.kernel * self.width)
            }
        };
        let whole = unit > 0 && self.values.len().is_multiple_of(unit);
        whole.then(|| (self.values.len() / unit * rows, width))
    }

    /// Some rows in bf16, an even number of values each, and the distance from one to the next: where they lie, or a
    /// copy in `scratch`.
    pub(super) fn block<'b>(&self, rows: Range<usize>, scratch: &'b mut Vec<bf16>) -> (&'b [bf16], usize)
    where
        'a: 'b,
    {
        if self.windows.is_none() && size_of::<T>() == 2 && self.width.is_multiple_of(2) {
            let values = &self.values[rows.start * self.width..rows.end * self.width];
            if let Ok(values) = bytemuck::try_cast_slice(values) {
                return (values, self.width);
            }
        }
        let width = self.size().map_or(0, |(_, width)| width);
        // One line more than needed: rows a large power of two apart would fall into the same few sets of the cache.
        let stride = width.next_multiple_of(32) + 32;
        scratch.resize(rows.len() * stride, bf16::ZERO);
        simd!({
            for (to, row) in scratch.chunks_exact_mut(stride).zip(rows) {
                let (to, rest) = to.split_at_mut(width);
                self.copy(row, to, T::round);
                rest.fill(bf16::ZERO);
            }
        });
        (scratch, stride)
    }

    /// Some rows, side by side: where they lie, or a copy in `scratch`.
    pub(super) fn rows<'b>(&self, rows: Range<usize>, scratch: &'b mut Vec<T>) -> &'b [T]
    where
        'a: 'b,
    {
        let Some((_, width)) = self.size().filter(|_| self.windows.is_some()) else {
            return &self.values[rows.start * self.width..rows.end * self.width];
        };
        scratch.resize(rows.len() * width, T::zeroed());
        scratch.chunks_exact_mut(width).zip(rows).for_each(|(to, row)| self.copy(row, to, <[T]>::copy_from_slice));
        scratch
    }

    /// Copies one row; what lies outside of the image is zero.
    #[inline(always)]
    fn copy<U: Value>(&self, row: usize, to: &mut [U], copy: impl Fn(&mut [U], &[T])) {
        let Some(w) = self.windows else {
            return copy(to, &self.values[row * self.width..][..self.width]);
        };
        let (down, across) = w.size();
        let image = &self.values[row / (down * across) * w.height * w.width * self.width..];
        let (top, left) = (row / across % down * w.stride, row % across * w.stride);
        // Columns of the window that lie inside of the image.
        let first = w.padding.saturating_sub(left).min(w.kernel);
        let last = (w.width + w.padding).saturating_sub(left).min(w.kernel).max(first);
        for (y, to) in (top..).zip(to.chunks_exact_mut(w.kernel * self.width)) {
            match y.checked_sub(w.padding).filter(|&y| y < w.height && first < last) {
                None => to.fill(U::zeroed()),
                Some(y) => {
                    to[..first * self.width].fill(U::zeroed());
                    to[last * self.width..].fill(U::zeroed());
                    let from = (y * w.width + left + first - w.padding) * self.width;
                    let inside = (last - first) * self.width;
                    copy(&mut to[first * self.width..][..inside], &image[from..][..inside]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_the_definition() {
        let (images, channels) = (2, 3);
        for (height, width, kernel, stride, padding) in
            [(5, 4, 3, 1, 1), (6, 7, 3, 2, 1), (4, 4, 2, 2, 0), (7, 5, 1, 2, 0), (9, 8, 7, 2, 3), (1, 1, 3, 1, 1)]
        {
            let w = Windows { height, width, kernel, stride, padding };
            let values: Vec<f32> = (0..images * height * width * channels).map(|i| i as f32 + 1.0).collect();
            let operand = Operand::windows(&values, channels, w);
            let (rows, columns) = operand.size().unwrap();
            let (mut scratch, (down, across)) = (Vec::new(), w.size());
            assert_eq!((rows, columns), (images * down * across, kernel * kernel * channels));
            let got = operand.rows(0..rows, &mut scratch);
            for (i, &got) in got.iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let (image, oy, ox) = (row / (down * across), row / across % down, row % across);
                let (ky, kx, channel) = (column / (kernel * channels), column / channels % kernel, column % channels);
                let (y, x) = ((oy * stride + ky).wrapping_sub(padding), (ox * stride + kx).wrapping_sub(padding));
                let inside = y < height && x < width;
                let at = ((image * height + y.min(height)) * width + x.min(width)) * channels + channel;
                assert_eq!(got, if inside { values[at] } else { 0.0 }, "{w:?}, row {row}, column {column}");
            }
        }
    }

    #[test]
    fn images_that_are_not_whole_have_no_size() {
        let w = Windows { height: 2, width: 2, kernel: 2, stride: 1, padding: 0 };
        assert!(Operand::windows(&[0.0f32; 7], 1, w).size().is_none());
        assert!(Operand::new(&[0.0f32; 7], 2).size().is_none() && Operand::new(&[0.0f32; 7], 0).size().is_none());
        assert_eq!(Operand::windows(&[0.0f32; 8], 1, Windows { kernel: 3, ..w }).size(), Some((0, 9)));
    }
}
