//! `mlp` on CUDA devices: forward a launch of all instances (kernels/two_layers.cu), or one for each layer of those that do not fit
//! into it (kernels/matmul.cu), as backward has.

use super::{Checked, Mlp, NAME, Saved, columns};
use crate::autograd::{InstanceGrads, Reached};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Ptr, Target};
use crate::error::Result;
use crate::ops::elsewhere;
use crate::ops::matmul::{Operand, Product};
use crate::ops::two_layers::{Ending, Layer, Sizes, TwoLayers};
use crate::tensor::Tensor;

/// What backward needs.
pub struct DeviceSaved {
    weights: [Tensor; 2],
    parts: Vec<Tensor>,
    /// After ReLU (n, h).
    hidden: DeviceBuffer<f32>,
}

fn rows(tensor: &Tensor) -> Operand {
    Operand::rows(tensor.ptr(), tensor.shape()[1])
}

/// The columns of a weight that a part begins with.
fn columns_of(weight: &Tensor, start: usize) -> Operand {
    Operand::rows(weight.ptr().offset::<f32>(start), weight.shape()[1])
}

/// One launch of all that fit into it; of the others, one for each layer.
pub fn forward(gpu: &Gpu, of: Vec<Checked>) -> Result<Vec<(Tensor, Saved)>> {
    let (mut together, mut first, mut second) = (gpu.two_layers(), gpu.products(), Vec::new());
    let mut results = Vec::with_capacity(of.len());
    for Checked { weights: [w1, b1, w2, b2], parts } in of {
        let (h, d, n) = (w1.shape()[0], w2.shape()[0], parts[0].shape()[0]);
        let sizes = Sizes { widths: parts.iter().map(|part| part.shape()[1]).collect(), h, d };
        let (hidden, out) = (gpu.alloc::<f32>("mlp", n * h)?, gpu.alloc::<f32>("mlp", n * d)?);
        let at: Vec<Ptr> = parts.iter().map(Tensor::ptr).collect();
        let reads: Vec<Ptr> = [w1, b1, w2, b2].map(Tensor::ptr).into_iter().chain(at.iter().copied()).collect();
        if gpu.has_two_layers(&sizes, &reads) {
            together.push(&TwoLayers {
                sizes,
                n,
                parts: at,
                first: Layer { weight: w1.ptr(), bias: b1.ptr() },
                relu: true,
                hidden: hidden.ptr(),
                second: Layer { weight: w2.ptr(), bias: b2.ptr() },
                transposed: false,
                ending: Ending::Written { scale: 1.0, out: out.ptr() },
            });
        } else {
            for (i, (start, part)) in columns(&parts).enumerate() {
                let product = Product::new(rows(part), columns_of(w1, start).t(), [n, h, part.shape()[1]]);
                let product = product.relu(i + 1 == parts.len());
                let product = if i == 0 { product.bias(b1.ptr(), 0) } else { product.accumulate(true) };
                first = first.write(product, Operand::rows(hidden.ptr(), h))?;
            }
            let product = Product::new(Operand::rows(hidden.ptr(), h), rows(w2).t(), [n, d, h]).bias(b2.ptr(), 0);
            second.push((product, Operand::rows(out.ptr(), d)));
        }
        let saved = DeviceSaved { weights: [w1.clone(), w2.clone()], parts, hidden };
        results.push((Tensor::on_device([n, d], out)?, Saved::Device(saved)));
    }
    together.run()?;
    first.run()?;
    gpu.products().write_all(second)?.run()?;
    Ok(results)
}

pub fn backward(gpu: &Gpu, reached: &[Reached<Mlp>], grads: &mut InstanceGrads) -> Result<()> {
    let (mut sums, mut products) = (gpu.sums(), gpu.products());
    // Gradients of what went into ReLU.
    let mut dhiddens = Vec::with_capacity(reached.len());
    for Reached { number, saved, grad, .. } in reached {
        let Saved::Device(DeviceSaved { weights: [w1, w2], hidden, .. }) = saved else { return Err(elsewhere(NAME)) };
        let grad = grad.array()?;
        let (h, (n, d)) = (w1.shape()[0], (grad.shape()[0], grad.shape()[1]));
        let mut grads = grads.of(*number);
        let (dw2, db2) = (grads.on_device(2)?, grads.on_device(3)?);
        let (dout, output) = (rows(grad), Operand::rows(hidden.ptr(), h));
        let dhidden = gpu.alloc::<f32>("gradients of mlp", n * h)?;
        let dweight = Product::new(dout.t(), output, [d, h, n]).row_sums(db2, 0).accumulate(dw2.adds);
        products = products
            .sum(dweight, Operand::rows(dw2.at, h), &mut sums)?
            .write(Product::new(dout, rows(w2), [n, h, d]).relu_backward(output), Operand::rows(dhidden.ptr(), h))?;
        dhiddens.push((dhidden, saved));
    }
    products.run()?;
    let mut products = gpu.products();
    for (Reached { number, grad, .. }, (dhidden, saved)) in reached.iter().zip(&dhiddens) {
        let Saved::Device(DeviceSaved { weights: [w1, _], parts, .. }) = saved else { return Err(elsewhere(NAME)) };
        let ((h, width), n) = ((w1.shape()[0], w1.shape()[1]), grad.array()?.shape()[0]);
        let mut grads = grads.of(*number);
        let (dw1, db1) = (grads.on_device(0)?, grads.on_device(1)?);
        let dhidden = Operand::rows(dhidden.ptr(), h);
        for (i, (start, part)) in columns(parts).enumerate() {
            let w = part.shape()[1];
            let to = Operand::rows(if dw1.is_null() { dw1.at } else { dw1.at.offset::<f32>(start) }, width);
            let bias = if i == 0 { db1 } else { Target::NULL };
            let dweight = Product::new(dhidden.t(), rows(part), [h, w, n]).row_sums(bias, 0).accumulate(dw1.adds);
            products = products.sum(dweight, to, &mut sums)?;
            let dpart = grads.on_device(4 + i)?;
            if !dpart.is_null() {
                let product = Product::new(dhidden, columns_of(w1, start), [n, w, h]).accumulate(dpart.adds);
                products = products.write(product, Operand::rows(dpart.at, w))?;
            }
        }
    }
    products.run()?;
    sums.run()
}
