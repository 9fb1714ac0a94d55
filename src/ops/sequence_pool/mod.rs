//! Mean or maximum of each column over each sequence: rows (Σ lengths, d) -> (n, d).

mod cuda;

use rayon::prelude::*;

use super::multi_pool::split_by;
use super::{arity, elementwise, elsewhere};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::{Ragged, Tensor};

const NAME: &str = "sequence_pool";

/// What of a sequence's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The largest; the gradient goes to the first of equal ones.
    Max,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct SequencePool {
    /// Which rows form which sequence.
    pub sequences: Ragged,
    /// What of them.
    pub kind: Pooling,
}

/// Row, among all, that holds the maximum of each sequence and column (n, d), if maxima are wanted.
pub enum Saved {
    Host(Vec<u32>),
    Device(cuda::Saved),
}

/// The largest value of each column over one sequence, and its row among all.
#[inline(always)]
fn maxima(sequence: &[f32], first_row: u32, max: &mut [f32], argmax: &mut [u32]) {
    max.fill(f32::NEG_INFINITY);
    argmax.fill(first_row);
    for (row, values) in (first_row..).zip(sequence.chunks_exact(max.len())) {
        for ((x, max), argmax) in values.iter().zip(&mut *max).zip(&mut *argmax) {
            let higher = *x > *max;
            *max = if higher { *x } else { *max };
            *argmax = if higher { row } else { *argmax };
        }
    }
}

impl Op for SequencePool {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "rows"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (rows, d, n) = (self.sequences.rows(), inputs[0][1], self.sequences.len());
        let (textbook, saved) = (self.sequences.textbook(), if self.kind == Pooling::Max { n } else { 0 });
        // Four warps share a sequence, put together what they found of a mean, and each divide its gradient. Comparisons are
        // no FLOPs.
        let ([found, divided], flops) = match self.kind {
            Pooling::Mean => ([rows + 5 * n, 8 * n], [rows * d, n * d]),
            Pooling::Max => ([0, 0], [0, 0]),
        };
        Cost {
            textbook_forward: (textbook.rows() * d) as u64,
            textbook_backward: (textbook.rows() * d) as u64,
            kernels_forward: KernelWork::vector((found * d) as u64),
            kernels_backward: KernelWork::vector((divided * d) as u64),
            ..elementwise::cost(flops, [(rows + n + saved) * d; 2])
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[x] = arity(NAME, inputs)?;
        let ((rows, d), n) = (x.matrix(NAME, "rows")?, self.sequences.len());
        if rows != self.sequences.rows() || d == 0 {
            let wanted = self.sequences.rows();
            return Err(Error::shape(
                NAME,
                format!("{rows} rows of {d} columns, sequences have {wanted} of at least 1"),
            ));
        }
        if let Some(gpu) = x.gpu() {
            let (out, saved) = self.forward_on(gpu, x)?;
            return Ok((out, Saved::Device(saved)));
        }
        let values = |sequence: usize| {
            let range = self.sequences.range(sequence);
            (&x.data()[range.start * d..range.end * d], range.start as u32)
        };
        let mut out = Buffer::zeros(n * d);
        let mut argmax = vec![];
        match self.kind {
            Pooling::Mean => elementwise::rows(&mut out, d, |i, out| {
                let (rows, _) = values(i);
                simd!({
                    rows.chunks_exact(d).for_each(|row| vector::add(out, row));
                    vector::scale(out, 1.0 / (rows.len() / d) as f32);
                });
            }),
            Pooling::Max => {
                argmax = vec![0; n * d];
                let outputs = out.par_chunks_mut(d).zip(argmax.par_chunks_mut(d)).enumerate();
                outputs.with_min_len(8).for_each(|(i, (out, argmax))| {
                    let (rows, first) = values(i);
                    simd!(maxima(rows, first, out, argmax));
                });
            }
        }
        Ok((Tensor::new([n, d], out)?, Saved::Host(argmax)))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let argmax = match (saved, grad.gpu()) {
            (Saved::Host(argmax), None) => argmax,
            (Saved::Device(saved), Some(gpu)) => return self.backward_on(gpu, saved, grad, grads.on_device(0)?),
            _ => return Err(elsewhere(NAME)),
        };
        let (_, d) = grad.matrix(NAME, "gradient")?;
        let Some(to) = grads.get(0) else { return Ok(()) };
        let sequences = split_by(to, &self.sequences, d);
        sequences.into_par_iter().enumerate().with_min_len(8).for_each(|(i, rows)| {
            let (grad, range) = (&grad.data()[i * d..][..d], self.sequences.range(i));
            match self.kind {
                Pooling::Mean => {
                    let share = 1.0 / range.len() as f32;
                    simd!(rows.chunks_exact_mut(d).for_each(|row| vector::add_scaled(row, share, grad)));
                }
                Pooling::Max => {
                    for (column, (&row, grad)) in argmax[i * d..][..d].iter().zip(grad).enumerate() {
                        rows[(row as usize - range.start) * d + column] += grad;
                    }
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::tensor::Textbook;

    #[test]
    fn of_equal_values_the_first_has_the_gradient() {
        let sequences = Ragged::new([3, 1], Textbook { sequences: 2, length: 3 }).unwrap();
        let tape = Tape::recording();
        let x = tape.leaf(Tensor::new([4, 1], vec![1.0, 2.0, 2.0, -1.0]).unwrap());
        let out = tape.apply(SequencePool { sequences, kind: Pooling::Max }, &[&x]).unwrap();
        assert_eq!(out.tensor().data(), [2.0, -1.0]);
        let mut grads = tape.backward(&out, Tensor::new([2, 1], vec![5.0, 7.0]).unwrap()).unwrap();
        assert_eq!(grads.take(&x).unwrap().data(), [0.0, 5.0, 0.0, 7.0]);
    }
}
