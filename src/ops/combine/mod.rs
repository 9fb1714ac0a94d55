//! Linear combinations of rows with fixed coefficients: scores divided by a temperature, averaged, laid on top of each
//! other.
//!
//! matrices (r_j, n), stacked to R rows -> (K, n) = coefficients (K, R) · rows.

mod cuda;

pub(super) use cuda::combine_on;

use super::elementwise;
use crate::autograd::{Cost, InputGrads, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::device::cuda::{Ptr, Target};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "combine";

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Combine {
    /// Of each output row, what every input row is multiplied by (K, R).
    pub coefficients: Vec<Vec<f32>>,
}

/// `out += Σ_j coefficients_j x_j`
pub(super) fn add_combination<'a>(out: &mut [f32], terms: impl Iterator<Item = (f32, &'a [f32])>) {
    for (coefficient, x) in terms {
        elementwise::pieces(out, [x], |out, [x]| simd!(vector::add_scaled(out, coefficient, x)));
    }
}

impl Combine {
    /// Columns of the inputs, if they have as many rows as there are coefficients.
    fn columns(&self, inputs: &[&Tensor]) -> Result<usize> {
        let Some(first) = inputs.first() else { return Err(Error::shape(NAME, "no rows to combine")) };
        let (mut rows, (_, n)) = (0, first.matrix(NAME, "rows")?);
        for input in inputs {
            let (own, _) = input.matrix(NAME, "rows")?;
            input.expect(NAME, "rows", &[own, n])?;
            rows += own;
        }
        if let Some(wrong) = self.coefficients.iter().find(|of| of.len() != rows) {
            return Err(Error::shape(NAME, format!("{} coefficients for {rows} rows", wrong.len())));
        }
        if rows == 0 || self.coefficients.is_empty() {
            let outputs = self.coefficients.len();
            return Err(Error::shape(NAME, format!("{rows} rows to {outputs}; both must be at least 1")));
        }
        Ok(n)
    }
}

impl Op for Combine {
    /// Rows of each input.
    type Saved = Vec<usize>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "rows"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (k, n, rows) = (self.coefficients.len(), inputs[0][1], inputs.iter().map(|shape| shape[0]).sum::<usize>());
        elementwise::cost([2 * k * rows * n; 2], [(k + rows) * n; 2])
    }

    fn cost_of_gradient(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let (k, values) = (self.coefficients.len(), inputs[input].iter().product::<usize>());
        elementwise::cost([0, 2 * k * values], [0, values])
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Vec<usize>)> {
        let (k, n) = (self.coefficients.len(), self.columns(inputs)?);
        let heights: Vec<usize> = inputs.iter().map(|input| input.shape()[0]).collect();
        if let Some(gpu) = inputs[0].gpu() {
            let out = gpu.alloc(NAME, k * n)?;
            let outs: Vec<Target> = rows_at(out.ptr(), k, n).map(|at| Target { at, adds: false }).collect();
            let ins: Vec<Ptr> = inputs.iter().flat_map(|input| rows_at(input.ptr(), input.shape()[0], n)).collect();
            combine_on(gpu, &outs, &ins, |i, j| self.coefficients[i][j], n)?;
            return Ok((Tensor::on_device([k, n], out)?, heights));
        }
        let mut out = Buffer::zeros(k * n);
        for (out, coefficients) in out.chunks_exact_mut(n.max(1)).zip(&self.coefficients) {
            let rows = inputs.iter().flat_map(|input| input.data().chunks_exact(n.max(1)));
            add_combination(out, coefficients.iter().copied().zip(rows));
        }
        Ok((Tensor::new([k, n], out)?, heights))
    }

    fn backward(&self, heights: Vec<usize>, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let (k, n) = grad.matrix(NAME, "gradient")?;
        if let Some(gpu) = grad.gpu() {
            let mut outs = Vec::new();
            for (i, &height) in heights.iter().enumerate() {
                let Target { at, adds } = grads.on_device(i)?;
                match at == Ptr::NULL {
                    true => outs.extend(vec![Target::NULL; height]),
                    false => outs.extend(rows_at(at, height, n).map(|at| Target { at, adds })),
                }
            }
            let ins: Vec<Ptr> = rows_at(grad.ptr(), k, n).collect();
            return combine_on(gpu, &outs, &ins, |i, j| self.coefficients[j][i], n);
        }
        let mut row = 0;
        for (i, &height) in heights.iter().enumerate() {
            if let Some(to) = grads.get(i) {
                for (to, row) in to.chunks_exact_mut(n.max(1)).zip(row..) {
                    let coefficients = self.coefficients.iter().map(|of| of[row]);
                    add_combination(to, coefficients.zip(grad.data().chunks_exact(n.max(1))));
                }
            }
            row += height;
        }
        Ok(())
    }
}

/// Where each row of a matrix lies.
fn rows_at(matrix: Ptr, rows: usize, n: usize) -> impl Iterator<Item = Ptr> {
    (0..rows).map(move |row| matrix.offset::<f32>(row * n))
}
