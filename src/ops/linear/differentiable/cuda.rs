//! `linear` with gradients on CUDA devices (kernels/matmul.cu, linear_activation.cu).

use bytemuck::{Pod, Zeroable};

use super::{Linear, NAME, Saved};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::Result;
use crate::ops::linear::Activation;
use crate::ops::linear::tiled::Finish;
use crate::ops::matmul::{Operand, Product};
use crate::ops::mlp::columns;
use crate::tensor::Tensor;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    x: Ptr,
    out: Ptr,
    length: i64,
    finish: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    dout: Ptr,
    kept: Ptr,
    dx: Ptr,
    length: i64,
    finish: i32,
    padding: i32,
}

fn rows(tensor: &Tensor) -> Operand {
    Operand::rows(tensor.ptr(), tensor.shape()[1])
}

fn number(activation: Activation) -> i32 {
    Finish::from(Some(activation)) as i32
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
            Some(activation) => {
                let y = if activation.keeps_input() {
                    Tensor::on_device([n, out], gpu.alloc::<f32>(NAME, n * out)?)?
                } else {
                    sums.clone()
                };
                let (x, to) = (sums.ptr(), y.ptr());
                let args = Forward { x, out: to, length: y.len() as i64, finish: number(activation), padding: 0 };
                gpu.launch("linear_activation", Grid::values(y.len(), 256), &args)?;
                (y, Some(sums))
            }
        };
        Ok((y, Saved { weight: weight.clone(), parts, kept }))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: &Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let Saved { weight, parts, kept } = saved;
        let ((out, width), n) = ((weight.shape()[0], weight.shape()[1]), grad.shape()[0]);
        let mut dsums = grad.clone();
        if let (Some(activation), Some(kept)) = (self.activation, kept) {
            dsums = Tensor::on_device([n, out], gpu.alloc::<f32>("gradients of linear", n * out)?)?;
            let args = Backward {
                dout: grad.ptr(),
                kept: kept.ptr(),
                dx: dsums.ptr(),
                length: grad.len() as i64,
                finish: number(activation),
                padding: 0,
            };
            gpu.launch("linear_activation_backward", Grid::values(grad.len(), 256), &args)?;
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
