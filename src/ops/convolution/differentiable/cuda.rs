//! `convolution` with gradients on CUDA devices (kernels/windows.cu, matmul.cu).

use std::ops::Range;

use super::{Convolution, NAME, Saved, Sizes};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Ptr, Target};
use crate::error::Result;
use crate::ops::activation::cuda as activation;
use crate::ops::convolution::windows::launch;
use crate::ops::linear::Activation;
use crate::ops::matmul::{Operand, Product};
use crate::tensor::Tensor;

/// Unfolded windows, which chunks use one after the other; none if they are pixels.
type Unfolded = Option<DeviceBuffer<f32>>;

impl Convolution {
    /// Memory for the windows of a chunk.
    fn room(&self, gpu: &Gpu, sizes: Sizes) -> Result<Unfolded> {
        let most = self.chunks(sizes).map(|chunk| chunk.len()).max().unwrap_or(0);
        let values = most * sizes.windows * sizes.width;
        (!self.windows.are_pixels()).then(|| gpu.alloc("windows", values)).transpose()
    }

    /// Values of an image.
    fn image(&self, sizes: Sizes) -> usize {
        self.windows.height * self.windows.width * sizes.inputs
    }

    /// Where the windows of some images lie, in `rows` once they are unfolded.
    fn unfolded(&self, gpu: &Gpu, rows: &Unfolded, x: &Tensor, sizes: Sizes, chunk: &Range<usize>) -> Result<Ptr> {
        let x = x.ptr().offset::<f32>(chunk.start * self.image(sizes));
        let Some(rows) = rows else { return Ok(x) };
        let (of, blocks) = ((self.windows, sizes.inputs), chunk.len() * sizes.windows);
        let to = Target { at: rows.ptr(), adds: false };
        launch(gpu, "windows_unfold", of, blocks, (x, to, Ptr::NULL))?;
        Ok(rows.ptr())
    }

    pub(super) fn forward_on(&self, gpu: &Gpu, inputs: [&Tensor; 3], sizes: Sizes) -> Result<DeviceBuffer<f32>> {
        let ([weight, bias, x], Sizes { images, windows, outputs, width, .. }) = (inputs, sizes);
        let (y, rows) = (gpu.alloc(NAME, images * windows * outputs)?, self.room(gpu, sizes)?);
        let w = Operand::rows(weight.ptr(), width).t();
        for chunk in self.chunks(sizes) {
            let a = Operand::rows(self.unfolded(gpu, &rows, x, sizes, &chunk)?, width);
            let product = Product::new(a, w, [chunk.len() * windows, outputs, width]);
            let to = y.ptr().offset::<f32>(chunk.start * windows * outputs);
            product.bias(bias.ptr(), 0).relu(self.relu).write(gpu, Operand::rows(to, outputs))?;
        }
        Ok(y)
    }

    pub(super) fn backward_on(
        &self,
        gpu: &Gpu,
        Saved { weight, x, y }: &Saved,
        grad: &Tensor,
        sizes: Sizes,
        grads: &mut InputGrads,
    ) -> Result<()> {
        let Sizes { windows, inputs, outputs, width, .. } = sizes;
        let mut dsums = grad.clone();
        if let Some(y) = y {
            dsums = Tensor::on_device(grad.shape(), gpu.alloc::<f32>("gradients of convolution", grad.len())?)?;
            activation::backward(gpu, Activation::Relu, y, grad, Target { at: dsums.ptr(), adds: false })?;
        }
        let (dweight, dbias, dx) = (grads.on_device(0)?, grads.on_device(1)?, grads.on_device(2)?);
        let w = Operand::rows(weight.ptr(), width);
        let rows = self.room(gpu, sizes)?;
        for chunk in self.chunks(sizes) {
            let count = chunk.len() * windows;
            let dsums = Operand::rows(dsums.ptr().offset::<f32>(chunk.start * windows * outputs), outputs);
            if !(dweight.is_null() && dbias.is_null()) {
                let later = |to: Target| Target { adds: to.adds || (chunk.start > 0 && !to.is_null()), ..to };
                let rows = Operand::rows(self.unfolded(gpu, &rows, x, sizes, &chunk)?, width);
                let product = Product::new(dsums.t(), rows, [outputs, width, count]).row_sums(later(dbias), 0);
                let (mut sums, to) = (gpu.sums(), Operand::rows(dweight.at, width));
                gpu.products().sum(product.accumulate(later(dweight).adds), to, &mut sums)?.run()?;
                sums.run()?;
            }
            if dx.is_null() {
                continue;
            }
            let dx = Target { at: dx.at.offset::<f32>(chunk.start * self.image(sizes)), ..dx };
            let product = Product::new(dsums, w, [count, width, outputs]);
            match &rows {
                None => product.accumulate(dx.adds).write(gpu, Operand::rows(dx.at, width))?,
                // Of the windows themselves nothing is needed any more.
                Some(rows) => {
                    product.write(gpu, Operand::rows(rows.ptr(), width))?;
                    let blocks = chunk.len() * self.windows.height * self.windows.width;
                    launch(gpu, "windows_fold", (self.windows, inputs), blocks, (rows.ptr(), dx, Ptr::NULL))?;
                }
            }
        }
        Ok(())
    }
}
