//! A linear layer with gradients: `activation(concat(parts) Wᵀ + b)`, of inputs that are laid side by side without
//! copying.
//!
//! weight (out, Σ w_i), bias (out) if there is one, parts (n, w_i) -> (n, out).

mod cuda;

use super::{Activation, Start, add_column_sums, linear, linear_backward_input, linear_backward_weight};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::Buffer;
use crate::error::{Error, Result};
use crate::ops::elsewhere;
use crate::ops::matmul::{Mat, summed, written};
use crate::ops::mlp::columns;
use crate::tensor::Tensor;

const NAME: &str = "linear";

/// See the module's documentation. Inputs: weight, bias if there is one, parts.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Applied to each output.
    pub activation: Option<Activation>,
    /// Whether there is a bias.
    pub bias: bool,
    /// Rows a textbook implementation would compute.
    pub textbook_rows: usize,
}

/// What backward needs.
pub struct Saved {
    weight: Tensor,
    parts: Vec<Tensor>,
    /// What the activation's derivative is computed from (n, out).
    kept: Option<Tensor>,
}

impl Linear {
    /// The first of the parts among the inputs.
    fn first_part(&self) -> usize {
        1 + self.bias as usize
    }

    /// Weight, bias and parts, if they fit.
    fn checked<'a>(&self, inputs: &[&'a Tensor]) -> Result<(&'a Tensor, Option<&'a Tensor>, Vec<Tensor>)> {
        let (&weight, bias, parts) = match inputs {
            [weight, bias, parts @ ..] if self.bias && !parts.is_empty() => (weight, Some(*bias), parts),
            [weight, parts @ ..] if !self.bias && !parts.is_empty() => (weight, None, parts),
            _ => return Err(Error::shape(NAME, "needs a weight, the bias if it has one, and at least one part")),
        };
        let (out, width) = weight.matrix(NAME, "weight")?;
        if let Some(bias) = bias {
            bias.expect(NAME, "bias", &[out])?;
        }
        let (n, _) = parts[0].matrix(NAME, "input")?;
        let mut total = 0;
        for part in parts {
            let (_, w) = part.matrix(NAME, "input")?;
            part.expect(NAME, "input", &[n, w])?;
            if w == 0 || out == 0 {
                return Err(Error::shape(NAME, format!("a part of {w} columns, {out} outputs: must be at least 1")));
            }
            total += w;
        }
        if total != width {
            return Err(Error::shape(NAME, format!("parts are {total} wide, the weight {width}")));
        }
        Ok((weight, bias, parts.iter().map(|&part| part.clone()).collect()))
    }
}

fn rows_of(tensor: &Tensor) -> Mat<'_> {
    Mat::new(tensor.data(), tensor.shape()[0], tensor.shape()[1])
}

impl Op for Linear {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        match i {
            0 => "weight",
            1 if self.bias => "bias",
            _ => "input",
        }
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let parts = &inputs[self.first_part()..];
        let ((out, width), n) = ((inputs[0][0], inputs[0][1]), parts[0][0]);
        let (bias, activation) = (self.bias as usize, self.activation.is_some() as usize);
        let per_row = out * (2 * width + bias + activation);
        let backward_per_row = out * (4 * width + bias + activation);
        let weights = 4 * out * (width + bias);
        let of_parts = |work: &dyn Fn(usize, usize) -> KernelWork| -> KernelWork {
            parts.iter().enumerate().map(|(i, part)| work(i, part[1])).sum()
        };
        // Activations other than ReLU, which is in the product's epilogue, have kernels of their own.
        let (apply, slope) = match self.activation {
            None | Some(Activation::Relu) => (0, activation),
            Some(activation) => activation.flops(),
        };
        let [apply, slope] = [apply, slope].map(|flops| KernelWork::vector((n * out * flops) as u64));
        Cost {
            kernels_forward: of_parts(&|_, part| written(1, [n, out, part])) + apply,
            // The first part's product sums the gradient of the bias.
            kernels_backward: slope
                + of_parts(&|i, part| summed(1, [out, part, n], i == 0 && self.bias) + written(1, [n, part, out])),
            forward: (n * per_row) as u64,
            backward: (n * backward_per_row) as u64,
            textbook_forward: (self.textbook_rows * per_row) as u64,
            textbook_backward: (self.textbook_rows * backward_per_row) as u64,
            forward_bytes: (weights + 4 * n * (width + out)) as u64,
            backward_bytes: (2 * weights + 4 * n * (2 * width + (1 + activation) * out)) as u64,
        }
    }

    fn cost_of_gradient(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let Some(part) = inputs.get(input).filter(|_| input >= self.first_part()) else { return Cost::default() };
        let (out, [n, width]) = (inputs[0][0], [part[0], part[1]]);
        Cost {
            backward: (2 * n * out * width) as u64,
            kernels_backward: written(1, [n, width, out]),
            textbook_backward: (2 * self.textbook_rows * out * width) as u64,
            backward_bytes: 4 * (out * width + n * width) as u64,
            ..Cost::default()
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (weight, bias, parts) = self.checked(inputs)?;
        if let Some(gpu) = weight.gpu() {
            return self.forward_on(gpu, weight, bias, parts);
        }
        let ((out, width), n) = ((weight.shape()[0], weight.shape()[1]), parts[0].shape()[0]);
        let w = Mat::new(weight.data(), out, width);
        let mut y = Buffer::scratch(n * out);
        for (i, (start, part)) in columns(&parts).enumerate() {
            let from = match bias {
                Some(bias) if i == 0 => Start::Bias(bias.data()),
                None if i == 0 => Start::Nothing,
                _ => Start::Add,
            };
            linear(&mut y, rows_of(part), w.columns(start, part.shape()[1]), from)?;
        }
        let mut y = Tensor::new([n, out], y)?;
        let sums = y.clone();
        let kept = match self.activation {
            None => None,
            Some(activation) if activation.keeps_input() => {
                activation.apply_to_all(y.data_mut());
                Some(sums)
            }
            Some(activation) => {
                // In place.
                drop(sums);
                activation.apply_to_all(y.data_mut());
                Some(y.clone())
            }
        };
        Ok((y, Saved { weight: weight.clone(), parts, kept }))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        match (saved.weight.gpu(), grad.gpu()) {
            (None, None) => {}
            (Some(_), Some(gpu)) => return self.backward_on(gpu, &saved, grad, grads),
            _ => return Err(elsewhere(NAME)),
        }
        let Saved { weight, parts, kept } = saved;
        let ((out, width), n) = ((weight.shape()[0], weight.shape()[1]), grad.shape()[0]);
        let mut dsums = grad.clone();
        if let (Some(activation), Some(kept)) = (self.activation, &kept) {
            activation.backward_of_all(dsums.data_mut(), kept.data());
        }
        if let Some(dbias) = self.bias.then(|| grads.get(1)).flatten() {
            add_column_sums(dbias, dsums.data());
        }
        let dsums = Mat::new(dsums.data(), n, out);
        if let Some(dweight) = grads.get(0) {
            for (start, part) in columns(&parts) {
                linear_backward_weight(&mut dweight[start..], width, dsums, rows_of(part))?;
            }
        }
        for (i, (start, part)) in columns(&parts).enumerate() {
            if let Some(dpart) = grads.get(self.first_part() + i) {
                let w = Mat::new(weight.data(), out, width).columns(start, part.shape()[1]);
                linear_backward_input(dpart, dsums, w)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: [usize; 2], values: &[f32]) -> Tensor {
        Tensor::new(shape, values.to_vec()).unwrap()
    }

    #[test]
    fn parts_lie_side_by_side() {
        let weight = tensor([2, 3], &[1.0, 2.0, 3.0, -1.0, 0.5, 0.0]);
        let bias = Tensor::new([2], vec![10.0, 20.0]).unwrap();
        let (left, right) = (tensor([1, 1], &[4.0]), tensor([1, 2], &[5.0, 6.0]));
        let of = |activation, bias| Linear { activation, bias, textbook_rows: 1 };
        let (y, _) = of(None, true).forward(&[&weight, &bias, &left, &right]).unwrap();
        assert_eq!(y.data(), [42.0, 18.5]);
        let (y, _) = of(Some(Activation::Relu), false).forward(&[&weight, &left, &right]).unwrap();
        assert_eq!(y.data(), [32.0, 0.0]);
    }

    #[test]
    fn activations_have_the_values_of_their_definitions() {
        let one = tensor([1, 1], &[1.0]);
        let cases =
            [(Activation::Tanh, -0.462_117_2), (Activation::Sigmoid, 0.377_540_7), (Activation::Gelu, -0.154_268_8)];
        for (activation, want) in cases {
            let op = Linear { activation: Some(activation), bias: false, textbook_rows: 1 };
            let (y, _) = op.forward(&[&tensor([1, 1], &[-0.5]), &one]).unwrap();
            assert!((y.data()[0] - want).abs() < 1e-6, "{activation:?}: {}", y.data()[0]);
        }
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() {
        let (weight, bias) = (Tensor::zeros([2, 3]), Tensor::zeros([2]));
        let op = Linear { activation: None, bias: true, textbook_rows: 1 };
        let error = |inputs: &[&Tensor]| op.forward(inputs).err().unwrap().to_string();
        assert!(error(&[&weight, &bias]).contains("at least one part"));
        assert!(error(&[&weight, &bias, &Tensor::zeros([4, 2])]).contains("parts are 2 wide, the weight 3"));
        assert!(
            error(&[&weight, &bias, &Tensor::zeros([4, 3]), &Tensor::zeros([4, 0])]).contains("a part of 0 columns")
        );
        assert!(error(&[&weight, &Tensor::zeros([3]), &Tensor::zeros([4, 3])]).contains("bias"));
    }
}
