//! A convolution of images with gradients: `relu(windows Wᵀ + b)`, or without the ReLU.
//!
//! weight (outputs, kernel² · inputs), the channel fastest, bias (outputs), images (n · height · width, inputs) -> maps (n · windows,
//! outputs). Windows are unfolded to rows for some images at a time, forward and once more backward, and not kept: memory is bounded,
//! and what is computed depends on shapes alone.

mod cuda;

use std::ops::Range;

use super::windows::{fold, held, images, unfold};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::Buffer;
use crate::error::{Error, Result};
use crate::ops::linear::{
    Activation, Start, Windows, add_column_sums, linear, linear_backward_input, linear_backward_weight,
};
use crate::ops::matmul::{Mat, summed, written};
use crate::ops::{arity, elsewhere};
use crate::tensor::Tensor;

const NAME: &str = "convolution";

/// See the module's documentation. Inputs: weight, bias, images.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    /// Of the images.
    pub windows: Windows,
    /// Whether negative outputs become 0.
    pub relu: bool,
    /// Most values of unfolded windows at a time, or those of one image if these are more.
    pub at_a_time: usize,
}

/// What backward needs.
pub struct Saved {
    weight: Tensor,
    x: Tensor,
    /// The output, of a ReLU.
    y: Option<Tensor>,
}

/// Sizes of an application.
#[derive(Clone, Copy)]
struct Sizes {
    images: usize,
    /// Of an image.
    windows: usize,
    inputs: usize,
    outputs: usize,
    /// Of an unfolded window.
    width: usize,
}

impl Convolution {
    /// 64 MiB of f32.
    pub const AT_A_TIME: usize = 1 << 24;

    fn sizes(&self, weight: &[usize], x: &[usize]) -> Sizes {
        let Windows { height, width, kernel, .. } = self.windows;
        let (down, across) = self.windows.size();
        Sizes {
            images: x[0] / (height * width).max(1),
            windows: down * across,
            inputs: x[1],
            outputs: weight[0],
            width: kernel * kernel * x[1],
        }
    }

    /// The inputs, if they fit, and their sizes.
    fn checked<'a>(&self, inputs: &[&'a Tensor]) -> Result<([&'a Tensor; 3], Sizes)> {
        let &[weight, bias, x] = arity(NAME, inputs)?;
        let ((outputs, _), (pixels, channels)) = (weight.matrix(NAME, "weight")?, x.matrix(NAME, "images")?);
        images(NAME, self.windows, pixels)?;
        if channels == 0 || outputs == 0 {
            return Err(Error::shape(NAME, format!("{channels} channels, {outputs} outputs: must be at least 1")));
        }
        let sizes = self.sizes(weight.shape(), x.shape());
        weight.expect(NAME, "weight", &[outputs, sizes.width])?;
        bias.expect(NAME, "bias", &[outputs])?;
        Ok(([weight, bias, x], sizes))
    }

    /// Images whose windows are unfolded together.
    fn chunks(&self, Sizes { images, windows, width, .. }: Sizes) -> impl Iterator<Item = Range<usize>> + use<> {
        let size = if self.windows.are_pixels() { images } else { (self.at_a_time / (windows * width)).max(1) };
        (0..images).step_by(size.max(1)).map(move |first| first..(first + size).min(images))
    }

    /// The windows of some images, unfolded into `rows` if they are not what `x` holds.
    fn rows<'a>(&self, rows: &'a mut Buffer, x: &'a Tensor, sizes: Sizes, chunk: &Range<usize>) -> Mat<'a> {
        let image = self.windows.height * self.windows.width * sizes.inputs;
        let (x, count) = (&x.data()[chunk.start * image..chunk.end * image], chunk.len() * sizes.windows);
        if self.windows.are_pixels() {
            return Mat::new(x, count, sizes.width);
        }
        if rows.len() < count * sizes.width {
            *rows = Buffer::scratch(count * sizes.width);
        }
        let rows = &mut rows[..count * sizes.width];
        unfold(rows, x, self.windows, sizes.inputs);
        Mat::new(rows, count, sizes.width)
    }

    /// FLOPs of adding up the rows of windows.
    fn folded(&self, sizes: Sizes) -> usize {
        if self.windows.are_pixels() { 0 } else { sizes.images * held(self.windows) * sizes.inputs }
    }

    /// What kernels spend on the products of all chunks.
    fn products(&self, sizes: Sizes, work: impl Fn(usize) -> KernelWork) -> KernelWork {
        self.chunks(sizes).map(|chunk| work(chunk.len() * sizes.windows)).sum()
    }
}

impl Op for Convolution {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["weight", "bias", "images"][i]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let sizes = self.sizes(inputs[0], inputs[2]);
        let Sizes { images, windows, outputs, width, .. } = sizes;
        let (n, values, relu) = (images * windows, inputs[2].iter().product::<usize>(), self.relu as usize);
        let forward = (n * outputs * (2 * width + 1 + relu)) as u64;
        let backward = (n * outputs * (4 * width + 1 + relu) + self.folded(sizes)) as u64;
        let weights = 4 * outputs * (width + 1);
        Cost {
            forward,
            backward,
            textbook_forward: forward,
            textbook_backward: backward,
            kernels_forward: self.products(sizes, |n| written(1, [n, outputs, width])),
            kernels_backward: KernelWork::vector((n * outputs * relu + self.folded(sizes)) as u64)
                + self.products(sizes, |n| summed(1, [outputs, width, n], true) + written(1, [n, width, outputs])),
            forward_bytes: (weights + 4 * (values + n * outputs)) as u64,
            backward_bytes: (2 * weights + 4 * (2 * values + (1 + relu) * n * outputs)) as u64,
        }
    }

    fn cost_of_gradient(&self, inputs: &[&[usize]], input: usize) -> Cost {
        if input != 2 {
            return Cost::default();
        }
        let sizes = self.sizes(inputs[0], inputs[2]);
        let Sizes { images, windows, outputs, width, .. } = sizes;
        let backward = (2 * images * windows * outputs * width + self.folded(sizes)) as u64;
        Cost {
            backward,
            textbook_backward: backward,
            kernels_backward: KernelWork::vector(self.folded(sizes) as u64)
                + self.products(sizes, |n| written(1, [n, width, outputs])),
            backward_bytes: 4 * (outputs * width + inputs[2].iter().product::<usize>()) as u64,
            ..Cost::default()
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let ([weight, bias, x], sizes) = self.checked(inputs)?;
        let Sizes { images, windows, outputs, width, .. } = sizes;
        let shape = [images * windows, outputs];
        let y = match x.gpu() {
            Some(gpu) => Tensor::on_device(shape, self.forward_on(gpu, [weight, bias, x], sizes)?)?,
            None => {
                let (mut y, mut rows) = (Buffer::scratch(shape[0] * outputs), Buffer::scratch(0));
                let w = Mat::new(weight.data(), outputs, width);
                for chunk in self.chunks(sizes) {
                    let to = &mut y[chunk.start * windows * outputs..chunk.end * windows * outputs];
                    linear(to, self.rows(&mut rows, x, sizes, &chunk), w, Start::Bias(bias.data()))?;
                }
                if self.relu {
                    Activation::Relu.apply_to_all(&mut y);
                }
                Tensor::new(shape, y)?
            }
        };
        let kept = self.relu.then(|| y.clone());
        Ok((y, Saved { weight: weight.clone(), x: x.clone(), y: kept }))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let sizes = self.sizes(saved.weight.shape(), saved.x.shape());
        match (saved.weight.gpu(), grad.gpu()) {
            (None, None) => {}
            (Some(_), Some(gpu)) => return self.backward_on(gpu, &saved, grad, sizes, grads),
            _ => return Err(elsewhere(NAME)),
        }
        let (Saved { weight, x, y }, Sizes { windows, inputs, outputs, width, .. }) = (saved, sizes);
        let mut dsums = grad.clone();
        if let Some(y) = y {
            Activation::Relu.backward_of_all(dsums.data_mut(), y.data());
        }
        if let Some(dbias) = grads.get(1) {
            add_column_sums(dbias, dsums.data());
        }
        let (w, image) = (Mat::new(weight.data(), outputs, width), self.windows.height * self.windows.width * inputs);
        let mut rows = Buffer::scratch(0);
        for chunk in self.chunks(sizes) {
            let count = chunk.len() * windows;
            let dsums = Mat::new(&dsums.data()[chunk.start * windows * outputs..], count, outputs);
            if let Some(dweight) = grads.get(0) {
                linear_backward_weight(dweight, width, dsums, self.rows(&mut rows, &x, sizes, &chunk))?;
            }
            let Some(dx) = grads.get(2) else { continue };
            let dx = &mut dx[chunk.start * image..chunk.end * image];
            if self.windows.are_pixels() {
                linear_backward_input(dx, dsums, w)?;
            } else {
                let mut drows = Buffer::zeros(count * width);
                linear_backward_input(&mut drows, dsums, w)?;
                fold(dx, &drows, self.windows, inputs);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;

    #[test]
    fn images_at_a_time_change_nothing() {
        let windows = Windows { height: 5, width: 4, kernel: 3, stride: 2, padding: 1 };
        let tensor = |shape: [usize; 2], by: f32| {
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| (by * i as f32).sin()).collect();
            Tensor::new(shape, values).unwrap()
        };
        let gradients = |at_a_time: usize| {
            let tape = Tape::recording();
            let bias = Tensor::new([2], vec![0.1, -0.2]).unwrap();
            let inputs = [tensor([2, 27], 0.7), bias, tensor([5 * 20, 3], 1.3)].map(|tensor| tape.leaf(tensor));
            let op = Convolution { windows, relu: true, at_a_time };
            let out = tape.apply(op, &inputs.each_ref()).unwrap();
            let mut grads = tape.backward(&out, tensor([5 * 6, 2], 0.3)).unwrap();
            let mut all = vec![out.into_tensor()];
            all.extend(inputs.iter().map(|input| grads.take(input).unwrap()));
            all
        };
        let want = gradients(Convolution::AT_A_TIME);
        // One image's windows are 6 x 27 values.
        for at_a_time in [0, 162, 324, 400] {
            for (got, want) in gradients(at_a_time).iter().zip(&want) {
                let most = want.data().iter().fold(0.0f32, |most, x| most.max(x.abs()));
                // Sums over thirty windows in another order.
                assert!(got.data().iter().zip(want.data()).all(|(x, y)| (x - y).abs() <= 1e-6 * most), "{at_a_time}");
            }
        }
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() {
        let of = |windows: Windows, shapes: [&[usize]; 3]| {
            let inputs = shapes.map(Tensor::zeros);
            let op = Convolution { windows, relu: false, at_a_time: 1 };
            op.forward(&inputs.each_ref()).err().unwrap().to_string()
        };
        let windows = Windows { height: 4, width: 4, kernel: 3, stride: 1, padding: 1 };
        assert!(of(windows, [&[2, 27], &[2], &[17, 3]]).contains("17 rows of pixels"));
        assert!(of(windows, [&[2, 27], &[2], &[0, 3]]).contains("0 rows of pixels"));
        assert!(of(windows, [&[2, 26], &[2], &[16, 3]]).contains("weight has shape [2, 26], needs [2, 27]"));
        assert!(of(windows, [&[2, 27], &[3], &[16, 3]]).contains("bias"));
        assert!(of(windows, [&[0, 27], &[0], &[16, 3]]).contains("0 outputs"));
        assert!(of(Windows { kernel: 9, ..windows }, [&[2, 243], &[2], &[16, 3]]).contains("needs images"));
        assert!(of(Windows { padding: 3, ..windows }, [&[2, 27], &[2], &[16, 3]]).contains("needs images"));
    }
}
