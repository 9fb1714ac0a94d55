//! The left item's row for each pair: x (left items, d) -> (pairs, d). [`Pairing::flip`] gives the right item's.
//!
//! Backward adds up, for each item, the gradients of its pairs, in a fixed order.

mod cuda;

pub(super) use cuda::gather_rows;

use super::reduce::group_sums;
use super::{Pairing, arity, elementwise};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::tensor::Tensor;

const NAME: &str = "gather";

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Gather {
    /// Whose left items' rows are wanted, one for each pair.
    pub pairs: Pairing,
}

impl Op for Gather {
    type Saved = ();

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "rows"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let values = (inputs[0][0] + self.pairs.len()) * inputs[0][1];
        let (pairs, items, d) = (self.pairs.len(), inputs[0][0], inputs[0][1]);
        Cost {
            kernels_backward: KernelWork::vector(group_sums(pairs, items, d)),
            ..elementwise::cost([0, pairs * d], [values; 2])
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, ())> {
        let &[x] = arity(NAME, inputs)?;
        let (_, d) = x.matrix(NAME, "rows")?;
        x.expect(NAME, "rows", &[self.pairs.by_left().len(), d])?;
        if x.gpu().is_some() {
            return Ok((self.forward_on(x)?, ()));
        }
        let mut out = Buffer::scratch(self.pairs.len() * d);
        elementwise::rows(&mut out, d, |pair, out| {
            out.copy_from_slice(&x.data()[self.pairs.left()[pair] as usize * d..][..d]);
        });
        Ok((Tensor::new([self.pairs.len(), d], out)?, ()))
    }

    fn backward(&self, (): (), grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = grad.gpu() {
            return self.backward_on(gpu, grad, grads.on_device(0)?);
        }
        let (_, d) = grad.matrix(NAME, "gradient")?;
        let Some(to) = grads.get(0) else { return Ok(()) };
        elementwise::rows(to, d, |item, to| {
            simd!(for &pair in self.pairs.by_left().of(item) {
                vector::add(to, &grad.data()[pair as usize * d..][..d]);
            });
        });
        Ok(())
    }
}
