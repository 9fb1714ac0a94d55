//! Pooling: the mean of sequences, the maximum of windows (kernels/pool.cu); [`differentiable`]: the latter with gradients. For means
//! with gradients there is `sequence_pool`.

pub mod cuda;
pub mod differentiable;

use rayon::prelude::*;

use super::convolution::Maps;
use super::linear::{Value, Windows};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::{Host, HostMut, Sequences, Tensor};

/// The mean row of each sequence in f32; of an empty one, zeros.
pub fn mean(x: &Tensor, sequences: &Sequences) -> Result<Tensor> {
    if x.gpu().is_some() {
        return cuda::mean(x, sequences);
    }
    let (values, width) = (x.wide("mean")?, x.width());
    let mut out = Buffer::zeros(sequences.lengths().len() * width);
    for (out, range) in out.chunks_exact_mut(width).zip(sequences.ranges()) {
        let rows = values.get(range.start * width..range.end * width);
        let rows = rows.ok_or_else(|| Error::shape("mean", "sequences reach past the rows"))?;
        simd!({
            rows.chunks_exact(width).for_each(|row| vector::add(out, row));
            vector::scale(out, 1.0 / range.len().max(1) as f32);
        });
    }
    Tensor::of_rows(out, width)
}

/// The largest value of each channel in square windows; what lies outside of the image is left out.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl MaxPool {
    /// Maps of the windows' maxima.
    pub fn forward(&self, x: &Maps) -> Result<Maps> {
        let MaxPool { kernel, stride, padding } = *self;
        let windows = Windows { height: x.height, width: x.width, kernel, stride, padding };
        let ((height, width), channels) = (windows.size(), x.rows.width());
        if x.rows.gpu().is_some() {
            return Ok(Maps { rows: cuda::max_pool(&x.rows, windows)?, height, width });
        }
        let mut rows = Tensor::scratch([x.images() * height * width, channels], x.rows.element())?;
        match (x.rows.host("max pool")?, rows.host_mut("max pool")?) {
            (Host::F32(x), HostMut::F32(out)) => maxima(x, out, windows, channels),
            (Host::Bf16(x), HostMut::Bf16(out)) => maxima(x, out, windows, channels),
            _ => return Err(Error::shape("max pool", "input and output differ in type")),
        }
        Ok(Maps { rows, height, width })
    }
}

/// Maxima of windows over images (n, height, width, channels).
fn maxima<T: Value>(x: &[T], out: &mut [T], windows: Windows, channels: usize) {
    let (down, across) = windows.size();
    let Windows { height, width, kernel, stride, padding } = windows;
    if out.is_empty() {
        return;
    }
    let images = x.par_chunks(height * width * channels).zip(out.par_chunks_mut(down * across * channels));
    images.for_each_init(
        || [vec![0.0; channels], vec![0.0; channels]],
        |[most, pixel], (x, out)| {
            for (i, out) in out.chunks_exact_mut(channels).enumerate() {
                let inside = |from: usize, end: usize| {
                    (from..from + kernel).filter_map(move |at| at.checked_sub(padding).filter(|&at| at < end))
                };
                simd!({
                    most.fill(f32::NEG_INFINITY);
                    for y in inside(i / across * stride, height) {
                        for x_at in inside(i % across * stride, width) {
                            T::load(pixel, &x[(y * width + x_at) * channels..][..channels]);
                            most.iter_mut()
                                .zip(&*pixel)
                                .for_each(|(most, &x)| *most = if x > *most || x.is_nan() { x } else { *most });
                        }
                    }
                    T::store(out, most);
                });
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maxima_of_overlapping_windows_at_the_border() {
        // Two channels, the second the first's negative.
        let values: Vec<f32> = (0..12).flat_map(|i| [i as f32, -(i as f32)]).collect();
        let x = Maps { rows: Tensor::of_rows(values, 2).unwrap(), height: 3, width: 4 };
        let out = MaxPool { kernel: 3, stride: 2, padding: 1 }.forward(&x).unwrap();
        assert_eq!((out.height, out.width), (2, 2));
        assert_eq!(out.rows.into_host().unwrap()[..], [5.0, 0.0, 7.0, -1.0, 9.0, -4.0, 11.0, -5.0]);
    }

    #[test]
    fn means_of_ragged_sequences() {
        let x = Tensor::of_rows(vec![1.0, 2.0, 3.0, 4.0, 7.0, 9.0], 2).unwrap();
        let means = mean(&x, &Sequences::new(vec![2, 0, 1])).unwrap().into_host().unwrap();
        assert_eq!(means[..], [2.0, 3.0, 0.0, 0.0, 7.0, 9.0]);
        assert!(mean(&x, &Sequences::new(vec![4])).is_err());
    }
}
