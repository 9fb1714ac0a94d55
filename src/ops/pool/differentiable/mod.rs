//! The largest value of each channel in square windows, with its backward: images (n · height · width, channels) -> maps (n ·
//! windows, channels). What lies outside of the image is left out, and a NaN is larger than any number. Of equal values, the first
//! has the gradient, line by line.

mod cuda;

use rayon::prelude::*;

use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::Buffer;
use crate::error::Result;
use crate::ops::convolution::windows::{each_pixel, images};
use crate::ops::linear::Windows;
use crate::ops::{arity, elementwise, elsewhere};
use crate::tensor::Tensor;

const NAME: &str = "max_pool";

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool {
    /// Of the images.
    pub windows: Windows,
}

/// The pixel of each maximum (n · windows, channels), by its number among all.
pub enum Saved {
    Host(Vec<u32>),
    Device(cuda::Saved),
}

impl MaxPool {
    /// The largest values of a window, and their pixels.
    fn maxima(&self, x: &[f32], window: usize, most: &mut [f32], pixels: &mut [u32]) {
        let (Windows { height, width, kernel, stride, padding }, (down, across)) = (self.windows, self.windows.size());
        let inside = |at: usize, end: usize| {
            let first = at * stride;
            first.saturating_sub(padding)..(first + kernel).saturating_sub(padding).min(end)
        };
        let first = window / (down * across) * height * width;
        most.fill(f32::NEG_INFINITY);
        let columns = inside(window % across, width);
        for (number, y) in inside(window / across % down, height).enumerate() {
            for (place, x_at) in columns.clone().enumerate() {
                let pixel = first + y * width + x_at;
                let row = &x[pixel * most.len()..][..most.len()];
                if (number, place) == (0, 0) {
                    pixels.fill(pixel as u32);
                }
                for ((x, most), at) in row.iter().zip(&mut *most).zip(&mut *pixels) {
                    if *x > *most || x.is_nan() {
                        (*most, *at) = (*x, pixel as u32);
                    }
                }
            }
        }
    }
}

impl Op for MaxPool {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "images"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (pixels, channels) = (inputs[0][0], inputs[0][1]);
        let outputs = self.windows.count(pixels) * channels;
        // Comparisons are no FLOPs; backward adds one value for each maximum. With each the number of its pixel is kept.
        Cost {
            kernels_backward: KernelWork::vector(outputs as u64),
            ..elementwise::cost([0, outputs], [pixels * channels + 2 * outputs; 2])
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[x] = arity(NAME, inputs)?;
        let (pixels, channels) = x.matrix(NAME, "images")?;
        images(NAME, self.windows, pixels)?;
        let shape = [self.windows.count(pixels), channels];
        if let Some(gpu) = x.gpu() {
            let (out, saved) = self.forward_on(gpu, x, shape)?;
            return Ok((Tensor::on_device(shape, out)?, Saved::Device(saved)));
        }
        let (mut out, mut at) = (Buffer::scratch(shape[0] * channels), vec![0; shape[0] * channels]);
        let rows = out.par_chunks_mut(channels.max(1)).zip(at.par_chunks_mut(channels.max(1))).enumerate();
        rows.with_min_len(32).for_each(|(window, (out, at))| self.maxima(x.data(), window, out, at));
        Ok((Tensor::new(shape, out)?, Saved::Host(at)))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let at = match (saved, grad.gpu()) {
            (Saved::Host(at), None) => at,
            (Saved::Device(saved), Some(gpu)) => return self.backward_on(gpu, saved, grad, grads.on_device(0)?),
            _ => return Err(elsewhere(NAME)),
        };
        let (_, channels) = grad.matrix(NAME, "gradient")?;
        let Some(dx) = grads.get(0) else { return Ok(()) };
        each_pixel(dx, self.windows, channels, |pixel, to, around| {
            for (window, ..) in around {
                let (at, grad) = (&at[window * channels..][..channels], &grad.data()[window * channels..][..channels]);
                for ((to, &at), grad) in to.iter_mut().zip(at).zip(grad) {
                    *to += if at as usize == pixel { *grad } else { 0.0 };
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;

    #[test]
    fn the_first_of_equal_maxima_has_the_gradient_and_nan_is_seen() {
        let windows = Windows { height: 2, width: 3, kernel: 2, stride: 1, padding: 0 };
        let pooled = |values: [f32; 6]| {
            let tape = Tape::recording();
            let x = tape.leaf(Tensor::new([6, 1], values.to_vec()).unwrap());
            let out = tape.apply(MaxPool { windows }, &[&x]).unwrap();
            let mut grads = tape.backward(&out, Tensor::new([2, 1], vec![5.0, 7.0]).unwrap()).unwrap();
            (out.into_tensor().data().to_vec(), grads.take(&x).unwrap().data().to_vec())
        };
        assert_eq!(pooled([1.0, 3.0, 2.0, 3.0, 3.0, 3.0]), (vec![3.0, 3.0], vec![0.0, 12.0, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!(pooled([0.0; 6]), (vec![0.0, 0.0], vec![5.0, 7.0, 0.0, 0.0, 0.0, 0.0]));
        let (out, grads) = pooled([9.0, 1.0, 2.0, f32::NAN, 1.0, 1.0]);
        assert!(out[0].is_nan() && out[1] == 2.0 && grads[3] == 5.0);
        let (out, grads) = pooled([f32::NEG_INFINITY; 6]);
        assert!(out == [f32::NEG_INFINITY; 2] && grads[..2] == [5.0, 7.0]);
    }
}
