//! `linear` with gradients on CUDA devices (kernels/matmul.cu, activation.cu).

use super::{Linear, NAME, Saved};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::Target;
use crate::error::Result;
use crate::ops::activation::cuda as activation;
use crate::ops::linear::Activation;
use crate::ops::matmul::{Operand, Product};
use crate::ops::mlp::columns;
use crate::tensor::Tensor;

fn rows(tensor: &Tensor) -> Operand {
    Operand::rows(tensor.ptr(), tensor.shape()[1])
}

impl Linear {
    pub(super) fn forward_on(
        &self,
        gpu: &Gpu,
        weight: &Tensor,
        bias: Option<&Tensor>,
        parts: Vec<Tensor>,
    ) -> Result<(Tensor, Saved)> {
        let ((out, width), n) = ((weight.shape()[0], weight.shape()[1]), parts[0].shape()[0]);
        let sums = gpu.alloc::<f32>(NAME, n * out)?;
        let relu = self.activation == Some(Activation::Relu);
        for (i, (start, part)) in columns(&parts).enumerate() {
            let w = Operand::rows(weight.ptr().offset::<f32>(start), width);
            let product = Product::new(rows(part), w.t(), [n, out, part.shape()[1]]);
            let product = product.relu(relu && i + 1 == parts.len()).accumulate(i > 0);
            let product = match bias {
                Some(bias) if i == 0 => product.bias(bias.ptr(), 0),
                _ => product,
            };
            product.write(gpu, Operand::rows(sums.ptr(), out))?;
        }
        let sums = Tensor::on_device([n, out], sums)?;
        let (y, kept) = match self.activation {
            None => (sums, None),
            Some(Activation::Relu) => (sums.clone(), Some(sums)),
            Some(function) => {
                let y = if function.keeps_input() {
                    Tensor::on_device([n, out], gpu.alloc::<f32>(NAME, n * out)?)?
                } else {
                    sums.clone()
                };
                activation::apply(gpu, function, sums.ptr(), y.ptr(), y.len())?;
                (y, Some(sums))
            }
        };
        Ok((y, Saved { weight: weight.clone(), parts, kept }))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: &Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let Saved { weight, parts, kept } = saved;
        let ((out, width), n) = ((weight.shape()[0], weight.shape()[1]), grad.shape()[0]);
        let mut dsums = grad.clone();
        if let (Some(function), Some(kept)) = (self.activation, kept) {
            dsums = Tensor::on_device([n, out], gpu.alloc::<f32>("gradients of linear", n * out)?)?;
            activation::backward(gpu, function, kept, grad, Target { at: dsums.ptr(), adds: false })?;
        }
        let dsums = rows(&dsums);
        let dweight = grads.on_device(0)?;
        let dbias = if self.bias { grads.on_device(1)? } else { Target::NULL };
        let (mut sums, mut products) = (gpu.sums(), gpu.products());
        for (i, (start, part)) in columns(parts).enumerate() {
            let w = part.shape()[1];
            let to = if dweight.is_null() { dweight.at } else { dweight.at.offset::<f32>(start) };
            let bias = if i == 0 { dbias } else { Target::NULL };
            let product = Product::new(dsums.t(), rows(part), [out, w, n]).row_sums(bias, 0).accumulate(dweight.adds);
            products = products.sum(product, Operand::rows(to, width), &mut sums)?;
            let dpart = grads.on_device(self.first_part() + i)?;
            if !dpart.is_null() {
                let w_part = Operand::rows(weight.ptr().offset::<f32>(start), width);
                let product = Product::new(dsums, w_part, [n, w, out]).accumulate(dpart.adds);
                products = products.write(product, Operand::rows(dpart.at, w))?;
            }
        }
        products.run()?;
        sums.run()
    }
}
