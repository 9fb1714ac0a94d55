//! A sum with fixed coefficients: tensors of one shape -> Σ c_i x_i, of that shape.

use super::combine::{add_combination, combine_on};
use super::elementwise;
use crate::autograd::{Cost, InputGrads, Op};
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::device::cuda::{Ptr, Target};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "sum";

/// See the module's documentation. Its kernel is that of [`Combine`](super::Combine).
#[derive(Clone, Debug)]
pub struct Sum {
    /// What each input is multiplied by.
    pub coefficients: Vec<f32>,
}

/// `to = Σ_j parts[j]`, of arrays of `length` values on a device, added in their order.
pub fn add_on(gpu: &Gpu, to: Ptr, parts: &[Ptr], length: usize) -> Result<()> {
    combine_on(gpu, &[Target { at: to, adds: false }], parts, |_, _| 1.0, length)
}

impl Op for Sum {
    type Saved = ();

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "term"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (terms, values) = (inputs.len(), inputs[0].iter().product::<usize>());
        elementwise::cost([2 * terms * values; 2], [(terms + 1) * values; 2])
    }

    fn cost_of_gradient(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let values = inputs[input].iter().product::<usize>();
        elementwise::cost([0, 2 * values], [0, values])
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, ())> {
        let (Some(first), true) = (inputs.first(), inputs.len() == self.coefficients.len()) else {
            let (terms, coefficients) = (inputs.len(), self.coefficients.len());
            return Err(Error::shape(
                NAME,
                format!("{terms} terms with {coefficients} coefficients, needs one of each"),
            ));
        };
        inputs.iter().try_for_each(|input| input.expect(NAME, "term", first.shape()))?;
        if let Some(gpu) = first.gpu() {
            let out = gpu.alloc(NAME, first.len())?;
            let ins: Vec<Ptr> = inputs.iter().map(|input| input.ptr()).collect();
            let to = Target { at: out.ptr(), adds: false };
            combine_on(gpu, &[to], &ins, |_, term| self.coefficients[term], first.len())?;
            return Ok((Tensor::on_device(first.shape(), out)?, ()));
        }
        let mut out = Buffer::zeros(first.len());
        add_combination(&mut out, self.coefficients.iter().copied().zip(inputs.iter().map(|input| input.data())));
        Ok((Tensor::new(first.shape(), out)?, ()))
    }

    fn backward(&self, (): (), grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = grad.gpu() {
            let outs = (0..self.coefficients.len()).map(|i| grads.on_device(i)).collect::<Result<Vec<_>>>()?;
            return combine_on(gpu, &outs, &[grad.ptr()], |term, _| self.coefficients[term], grad.len());
        }
        for (i, &coefficient) in self.coefficients.iter().enumerate() {
            if let Some(to) = grads.get(i) {
                add_combination(to, [(coefficient, grad.data())].into_iter());
            }
        }
        Ok(())
    }
}
