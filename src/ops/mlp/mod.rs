//! Two linear layers with ReLU between them (Eq. 4, 7, 9), on inputs that are laid side by side without copying.
//!
//! parts (n, w_i), hidden weight (h, Σ w_i), hidden bias (h), output weight (d, h), output bias (d) -> (n, d).

mod cuda;

use super::elsewhere;
use crate::autograd::{Cost, InputGrads, InstanceGrads, KernelWork, Op, Reached};
use crate::device::Gpu;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::ops::linear::{Start, add_column_sums, linear, linear_backward_input, linear_backward_weight};
use crate::ops::matmul::{Mat, summed, written};
use crate::ops::two_layers::Sizes;
use crate::tensor::Tensor;

const NAME: &str = "mlp";

/// See the module's documentation. Inputs: the four weights, then the parts.
pub struct Mlp {
    /// Rows a textbook implementation would compute.
    pub textbook_rows: usize,
}

/// What backward needs.
pub enum Saved {
    Host(HostSaved),
    Device(cuda::DeviceSaved),
}

/// What backward on the host needs.
pub struct HostSaved {
    weights: [Tensor; 2],
    parts: Vec<Tensor>,
    /// After ReLU (n, h).
    hidden: Buffer,
}

/// First column and width of each part in the concatenation.
pub(super) fn columns(parts: &[Tensor]) -> impl Iterator<Item = (usize, &Tensor)> {
    parts.iter().scan(0, |start, part| {
        let at = *start;
        *start += part.shape()[1];
        Some((at, part))
    })
}

fn rows_of(tensor: &Tensor) -> Mat<'_> {
    Mat::new(tensor.data(), tensor.shape()[0], tensor.shape()[1])
}

impl Op for Mlp {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["hidden weight", "hidden bias", "output weight", "output bias", "input"][i.min(4)]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let ((h, width), d, n) = ((inputs[0][0], inputs[0][1]), inputs[2][0], inputs[4][0]);
        // Products and biases; backward, their gradients by input and by weight.
        let per_row = 2 * h * width + h + 2 * d * h + d;
        let backward_per_row = 4 * h * width + h + 4 * d * h + d;
        let weights = 4 * (h * width + h + d * h + d);
        let of_parts = |work: &dyn Fn(usize, usize) -> KernelWork| -> KernelWork {
            inputs[4..].iter().enumerate().map(|(i, part)| work(i, part[1])).sum()
        };
        // The first part's product sums the gradient of the bias.
        let sizes = Sizes { widths: inputs[4..].iter().map(|part| part[1]).collect(), h, d };
        let parts_backward = of_parts(&|i, part| summed(1, [h, part, n], i == 0) + written(1, [n, part, h]));
        Cost {
            kernels_forward: match sizes.fit() {
                true => sizes.work(n, false),
                false => of_parts(&|_, part| written(1, [n, h, part])) + written(1, [n, d, h]),
            },
            kernels_backward: summed(1, [d, h, n], true) + written(1, [n, h, d]) + parts_backward,
            forward: (n * per_row) as u64,
            backward: (n * backward_per_row) as u64,
            textbook_forward: (self.textbook_rows * per_row) as u64,
            textbook_backward: (self.textbook_rows * backward_per_row) as u64,
            forward_bytes: (weights + 4 * n * (width + h + d)) as u64,
            backward_bytes: (2 * weights + 4 * n * (2 * width + h + d)) as u64,
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let Checked { weights: [w1, b1, w2, b2], parts } = checked(inputs)?;
        let ((h, width), d, n) = ((w1.shape()[0], w1.shape()[1]), w2.shape()[0], parts[0].shape()[0]);
        let mut hidden = Buffer::scratch(n * h);
        let w = Mat::new(w1.data(), h, width);
        for (start, part) in columns(&parts) {
            let from = if start == 0 { Start::Bias(b1.data()) } else { Start::Add };
            linear(&mut hidden, rows_of(part), w.columns(start, part.shape()[1]), from)?;
        }
        simd!(vector::relu(&mut hidden));
        let mut out = Buffer::scratch(n * d);
        linear(&mut out, Mat::new(&hidden, n, h), Mat::new(w2.data(), d, h), Start::Bias(b2.data()))?;
        let weights = [w1.clone(), w2.clone()];
        Ok((Tensor::new([n, d], out)?, Saved::Host(HostSaved { weights, parts, hidden })))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let saved = match (saved, grad.gpu()) {
            (Saved::Host(saved), None) => saved,
            _ => return Err(elsewhere(NAME)),
        };
        let [w1, w2] = &saved.weights;
        let ((h, width), (n, d)) = ((w1.shape()[0], w1.shape()[1]), (grad.shape()[0], grad.shape()[1]));
        let dout = Mat::new(grad.data(), n, d);
        if let Some(db2) = grads.get(3) {
            add_column_sums(db2, grad.data());
        }
        if let Some(dw2) = grads.get(2) {
            linear_backward_weight(dw2, h, dout, Mat::new(&saved.hidden, n, h))?;
        }
        let mut dhidden = Buffer::zeros(n * h);
        linear_backward_input(&mut dhidden, dout, Mat::new(w2.data(), d, h))?;
        for (dx, &x) in dhidden.iter_mut().zip(saved.hidden.iter()) {
            *dx = if x > 0.0 { *dx } else { 0.0 };
        }
        if let Some(db1) = grads.get(1) {
            add_column_sums(db1, &dhidden);
        }
        let dhidden = Mat::new(&dhidden, n, h);
        if let Some(dw1) = grads.get(0) {
            for (start, part) in columns(&saved.parts) {
                linear_backward_weight(&mut dw1[start..], width, dhidden, rows_of(part))?;
            }
        }
        for (i, (start, part)) in columns(&saved.parts).enumerate() {
            if let Some(dx) = grads.get(4 + i) {
                let w = Mat::new(w1.data(), h, width).columns(start, part.shape()[1]);
                linear_backward_input(dx, dhidden, w)?;
            }
        }
        Ok(())
    }

    fn forward_together(gpu: &Gpu, _: &[Mlp], inputs: &[Vec<&Tensor>]) -> Result<Vec<(Tensor, Saved)>> {
        let all: Vec<Checked> = inputs.iter().map(|inputs| checked(inputs)).collect::<Result<_>>()?;
        // Kernels that write to columns of one gradient know which are the same, not which overlap.
        let clashes = |(i, one): (usize, &Checked)| all[..i].iter().any(|other| one.clashes_with(other));
        if all.iter().enumerate().any(clashes) {
            return Err(Error::shape(NAME, "instances of one hidden weight have parts of different widths"));
        }
        cuda::forward(gpu, all)
    }

    fn backward_together(gpu: &Gpu, reached: Vec<Reached<Mlp>>, grads: &mut InstanceGrads) -> Result<()> {
        cuda::backward(gpu, &reached, grads)
    }
}

/// Inputs that fit.
struct Checked<'a> {
    weights: [&'a Tensor; 4],
    parts: Vec<Tensor>,
}

impl Checked<'_> {
    /// Whether the hidden weight is the same, its columns cut otherwise.
    fn clashes_with(&self, other: &Checked) -> bool {
        let widths = |of: &Checked| of.parts.iter().map(|part| part.shape()[1]).collect::<Vec<_>>();
        self.weights[0].ptr() == other.weights[0].ptr() && widths(self) != widths(other)
    }
}

fn checked<'a>(inputs: &[&'a Tensor]) -> Result<Checked<'a>> {
    let (&weights, parts) = match inputs.split_first_chunk::<4>() {
        Some((weights, parts)) if !parts.is_empty() => (weights, parts),
        _ => return Err(Error::shape(NAME, "needs four weights and at least one part")),
    };
    let [w1, b1, w2, b2] = weights;
    let (h, width) = w1.matrix(NAME, "hidden weight")?;
    let (d, _) = w2.matrix(NAME, "output weight")?;
    w2.expect(NAME, "output weight", &[d, h])?;
    b1.expect(NAME, "hidden bias", &[h])?;
    b2.expect(NAME, "output bias", &[d])?;
    let (n, _) = parts[0].matrix(NAME, "input")?;
    for part in parts {
        let (_, w) = part.matrix(NAME, "input")?;
        part.expect(NAME, "input", &[n, w])?;
    }
    let parts: Vec<Tensor> = parts.iter().map(|&p| p.clone()).collect();
    let total: usize = parts.iter().map(|p| p.shape()[1]).sum();
    if total != width {
        return Err(Error::shape(NAME, format!("parts are {total} wide, the hidden weight {width}")));
    }
    Ok(Checked { weights, parts })
}
