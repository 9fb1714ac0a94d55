//! Rows of length 1, whose dot products are cosines: x (n, d) -> x / max(|x|, 1e-8), of the same shape.

mod cuda;

use super::lanes::{LANES, WARP_SUM};
use super::{arity, elementwise, elsewhere};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::tensor::Tensor;

const NAME: &str = "normalize";

/// Lengths below this count as this, as in PyTorch's cosine similarity: rows of zeros stay zeros.
const LEAST: f32 = 1e-8;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Normalize;

/// What backward needs.
pub struct Saved {
    out: Tensor,
    norms: Norms,
}

/// The length of each row (n).
enum Norms {
    Host(Vec<f32>),
    Device(cuda::Norms),
}

impl Op for Normalize {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "input"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let values = inputs[0].iter().product::<usize>();
        let rows = inputs[0][0];
        // A warp per row: its length and what it is divided by in each lane.
        Cost {
            kernels_forward: KernelWork::vector((rows * (WARP_SUM + 2 * LANES) + 3 * values) as u64),
            kernels_backward: KernelWork::vector((rows * (WARP_SUM + LANES) + 6 * values) as u64),
            ..elementwise::cost([3 * values, 6 * values], [2 * values + rows, 3 * values + rows])
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[x] = arity(NAME, inputs)?;
        let (n, d) = x.matrix(NAME, "input")?;
        if let Some(gpu) = x.gpu() {
            let (out, norms) = cuda::forward(gpu, x)?;
            return Ok((out.clone(), Saved { out, norms: Norms::Device(norms) }));
        }
        let mut norms = vec![0.0; n];
        elementwise::rows(&mut norms, 1, |row, norm| {
            norm[0] = simd!(vector::squares_about(&x.data()[row * d..][..d], 0.0)).sqrt();
        });
        let mut out = Buffer::scratch(n * d);
        out.copy_from_slice(x.data());
        elementwise::rows(&mut out, d, |row, out| simd!(vector::scale(out, 1.0 / norms[row].max(LEAST))));
        let out = Tensor::new([n, d], out)?;
        Ok((out.clone(), Saved { out, norms: Norms::Host(norms) }))
    }

    fn backward(&self, Saved { out, norms }: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let norms = match (norms, grad.gpu()) {
            (Norms::Host(norms), None) => norms,
            (Norms::Device(norms), Some(gpu)) => return cuda::backward(gpu, &out, &norms, grad, grads.on_device(0)?),
            _ => return Err(elsewhere(NAME)),
        };
        let (_, d) = out.matrix(NAME, "output")?;
        let Some(to) = grads.get(0) else { return Ok(()) };
        elementwise::rows(to, d, |row, to| {
            let [out, grad] = [&out, grad].map(|tensor| &tensor.data()[row * d..][..d]);
            simd!({
                // What is along the row does not change its direction, but of a row that is divided by a constant all
                // counts.
                let along = if norms[row] > LEAST { vector::dot(out, grad) } else { 0.0 };
                let scale = 1.0 / norms[row].max(LEAST);
                vector::add_scaled(to, scale, grad);
                vector::add_scaled(to, -scale * along, out);
            });
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;

    #[test]
    fn rows_of_zeros_stay_zeros() {
        let tape = Tape::recording();
        let x = tape.leaf(Tensor::new([2, 2], vec![3.0, 4.0, 0.0, 0.0]).unwrap());
        let out = tape.apply(Normalize, &[&x]).unwrap();
        let near = |got: &[f32], want: [f32; 4]| {
            // Some roundings of 6e-8 each.
            got.iter()
                .zip(want)
                .for_each(|(got, want)| assert!((got - want).abs() <= 3e-7 * want.abs(), "{got}, {want}"));
        };
        near(out.tensor().data(), [0.6, 0.8, 0.0, 0.0]);
        let seed = Tensor::new([2, 2], vec![1.0, 0.0, 2.0, 0.0]).unwrap();
        let mut grads = tape.backward(&out, seed).unwrap();
        near(grads.take(&x).unwrap().data(), [0.128, -0.096, 2e8, 0.0]);
    }
}
