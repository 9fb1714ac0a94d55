//! `mlp` on CUDA devices (kernels/matmul.cu).

use super::{Mlp, columns};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Target};
use crate::error::Result;
use crate::ops::matmul::{Operand, Product};
use crate::tensor::Tensor;

/// What backward needs.
pub struct Saved {
    weights: [Tensor; 2],
    parts: Vec<Tensor>,
    /// After ReLU (n, h).
    hidden: DeviceBuffer<f32>,
}

fn rows(tensor: &Tensor) -> Operand {
    Operand::rows(tensor.ptr(), tensor.shape()[1])
}

impl Mlp {
    pub(super) fn forward_on(
        &self,
        gpu: &Gpu,
        [w1, b1, w2, b2]: [&Tensor; 4],
        parts: Vec<Tensor>,
    ) -> Result<(Tensor, Saved)> {
        let ((h, width), d, n) = ((w1.shape()[0], w1.shape()[1]), w2.shape()[0], parts[0].shape()[0]);
        let hidden = gpu.alloc::<f32>("mlp", n * h)?;
        let to_hidden = Operand::rows(hidden.ptr(), h);
        for (i, (start, part)) in columns(&parts).enumerate() {
            let w = Operand::rows(w1.ptr().offset::<f32>(start), width);
            let product = Product::new(rows(part), w.t(), [n, h, part.shape()[1]]).relu(i + 1 == parts.len());
            let product = if i == 0 { product.bias(b1.ptr(), 0) } else { product.accumulate(true) };
            product.write(gpu, to_hidden)?;
        }
        let out = gpu.alloc::<f32>("mlp", n * d)?;
        let product = Product::new(to_hidden, rows(w2).t(), [n, d, h]).bias(b2.ptr(), 0);
        product.write(gpu, Operand::rows(out.ptr(), d))?;
        Ok((Tensor::on_device([n, d], out)?, Saved { weights: [w1.clone(), w2.clone()], parts, hidden }))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let Saved { weights: [w1, w2], parts, hidden } = saved;
        let ((h, width), (n, d)) = ((w1.shape()[0], w1.shape()[1]), (grad.shape()[0], grad.shape()[1]));
        let [dw1, db1, dw2, db2] = [grads.on_device(0)?, grads.on_device(1)?, grads.on_device(2)?, grads.on_device(3)?];
        let dout = rows(grad);
        let output = Operand::rows(hidden.ptr(), h);
        let dhidden = gpu.alloc::<f32>("gradients of mlp", n * h)?;
        let dhidden_rows = Operand::rows(dhidden.ptr(), h);
        let mut sums = gpu.sums();
        let dweight = Product::new(dout.t(), output, [d, h, n]).row_sums(db2, 0).accumulate(dw2.adds);
        gpu.products()
            .sum(dweight, Operand::rows(dw2.at, h), &mut sums)?
            .write(Product::new(dout, rows(&w2), [n, h, d]).relu_backward(output), dhidden_rows)?
            .run()?;
        let mut products = gpu.products();
        for (i, (start, part)) in columns(&parts).enumerate() {
            let w = part.shape()[1];
            let to = Operand::rows(if dw1.is_null() { dw1.at } else { dw1.at.offset::<f32>(start) }, width);
            let bias = if i == 0 { db1 } else { Target::NULL };
            let dweight = Product::new(dhidden_rows.t(), rows(part), [h, w, n]).row_sums(bias, 0).accumulate(dw1.adds);
            products = products.sum(dweight, to, &mut sums)?;
            let dpart = grads.on_device(4 + i)?;
            if !dpart.is_null() {
                let weight = Operand::rows(w1.ptr().offset::<f32>(start), width);
                let product = Product::new(dhidden_rows, weight, [n, w, h]).accumulate(dpart.adds);
                products = products.write(product, Operand::rows(dpart.at, w))?;
            }
        }
        products.run()?;
        sums.run()
    }
}
