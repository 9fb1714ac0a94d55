//! Frozen encoder rows to the network's width: gather, linear layer, layer normalization (Eq. 2).
//!
//! rows of a table (n of them, width `in`), weight (d, in), bias, gamma, beta (d) -> (n, d).
//! The encoders are frozen, so gradients flow to the weights alone.

mod cuda;
mod sequences;

use std::cell::RefCell;

use rayon::prelude::*;

pub use sequences::{Attended, AttendedRows, Part, filled, lanes, parts_of_longest};

use super::{arity, elsewhere};
use crate::autograd::{Cost, InputGrads, InstanceGrads, Op, Reached};
use crate::device::Gpu;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::ops::layer_norm::{LayerNormGrads, NORM_BACKWARD, NORM_FORWARD, layer_norm_forward};
use crate::ops::linear::{ROW_CHUNK, Start, linear_chunk, segments, transposed};
use crate::ops::matmul::{Mat, matmul};
use crate::tensor::{FeatureRows, Ragged, Tensor};

const NAME: &str = "project";

/// Rows gathered at a time by backward: the sum over them is one matrix product, which pays off with its length.
const BACKWARD_ROWS: usize = 2 * ROW_CHUNK;

/// See the module's documentation.
pub struct Project {
    /// The rows, in the order wanted.
    pub features: FeatureRows,
    /// Epsilon of the layer normalization.
    pub eps: f32,
    /// Rows a textbook implementation would compute.
    pub textbook_rows: usize,
    /// The sequences that the rows form, if `cross_attention` and `multi_pool` alone read them: on a device of mixed arithmetic the
    /// rows are then [normalized](Tensor::normalized), and nobody writes their gradient.
    pub sequences: Option<Ragged>,
}

/// What backward needs.
pub enum Saved {
    Host(HostSaved),
    Device(Box<cuda::DeviceSaved>),
}

/// What backward on the host needs.
pub struct HostSaved {
    weight: Tensor,
    gamma: Tensor,
    /// Normalized rows before gamma and beta (n, d).
    xhat: Buffer,
    /// Reciprocal standard deviation of each row (n).
    rstd: Buffer,
}

thread_local! {
    /// Gathered rows of one chunk; kept because allocating it anew would fault in its pages every time.
    static GATHERED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Project {
    /// Calls `f` with the table's rows of these numbers as a matrix.
    fn with_rows<R>(&self, rows: &[u32], f: impl FnOnce(Mat) -> R) -> R {
        GATHERED.with_borrow_mut(|gathered| {
            let width = self.features.table.width();
            if gathered.len() < rows.len() * width {
                gathered.resize(rows.len() * width, 0.0);
            }
            let gathered = &mut gathered[..rows.len() * width];
            self.features.table.gather(rows, gathered);
            f(Mat::new(gathered, rows.len(), width))
        })
    }
}

impl Project {
    /// What it costs, of rows that form these sequences, which readers scale, or none.
    fn cost_of(&self, inputs: &[&[usize]], sequences: Option<&Ragged>) -> Cost {
        let (d, width) = (inputs[0][0], inputs[0][1]);
        let n = self.features.len();
        // Per output value: the product, the bias, and the normalization as the kernels compute it. Those that read sequences
        // apply scale and shift (fma).
        let norm = if sequences.is_some() { NORM_FORWARD - 2 } else { NORM_FORWARD };
        let forward = |rows: usize| (rows * d * (2 * width + 1 + norm)) as u64;
        let backward = |rows: usize| (rows * d * (2 * width + NORM_BACKWARD)) as u64;
        let features = n * width * self.features.table.value_bytes();
        let weights = 4 * (d * width + 3 * d);
        // Rows, and their gradient, and the rows that the normalization's backward takes, with their deviation.
        let rows = if sequences.is_some() { n * (2 * d + 4) } else { 4 * n * (2 * d + 1) };
        Cost {
            kernels_forward: cuda::forward_work(n, width, d, sequences.is_some()),
            kernels_backward: cuda::backward_work(n, width, d, sequences),
            forward: forward(n),
            backward: backward(n),
            textbook_forward: forward(self.textbook_rows),
            textbook_backward: backward(self.textbook_rows),
            forward_bytes: (features + weights + rows) as u64,
            backward_bytes: (features + 2 * weights + rows) as u64,
        }
    }

    /// The weights, if they and the row numbers fit.
    fn checked<'a>(&self, inputs: &[&'a Tensor]) -> Result<[&'a Tensor; 4]> {
        let &[weight, bias, gamma, beta] = arity(NAME, inputs)?;
        let (d, _) = weight.matrix(NAME, "weight")?;
        weight.expect(NAME, "weight", &[d, self.features.table.width()])?;
        for (tensor, what) in [(bias, "bias"), (gamma, "gamma"), (beta, "beta")] {
            tensor.expect(NAME, what, &[d])?;
        }
        self.features.table.check(&self.features.rows)?;
        if let Some(sequences) = self.sequences.as_ref().filter(|sequences| sequences.rows() != self.features.len()) {
            let (rows, expected) = (self.features.len(), sequences.rows());
            return Err(Error::shape(NAME, format!("{rows} rows, sequences have {expected}")));
        }
        Ok([weight, bias, gamma, beta])
    }
}

impl Op for Project {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["weight", "bias", "gamma", "beta"][i]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        self.cost_of(inputs, None)
    }

    fn cost_of_gathering(&self, inputs: &[&[usize]]) -> Cost {
        self.cost_of(inputs, self.sequences.as_ref())
    }

    fn gathers(&self) -> bool {
        self.sequences.is_some()
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [weight, bias, gamma, beta] = self.checked(inputs)?;
        let (d, n) = (weight.shape()[0], self.features.len());
        let (mut xhat, mut out, mut rstd) = (Buffer::scratch(n * d), Buffer::scratch(n * d), Buffer::scratch(n));
        let weights = Mat::new(weight.data(), d, self.features.table.width());
        // One chunk of rows does not earn back a copy.
        let copy = (n > ROW_CHUNK).then(|| transposed(weights));
        let w = copy.as_ref().map_or(weights.t(), |copy| Mat::new(copy, self.features.table.width(), d));
        let chunks = xhat.par_chunks_mut(ROW_CHUNK * d).zip(out.par_chunks_mut(ROW_CHUNK * d));
        let chunks = chunks.zip(rstd.par_chunks_mut(ROW_CHUNK)).zip(self.features.rows.par_chunks(ROW_CHUNK));
        chunks.try_for_each(|(((xhat, out), rstd), rows)| {
            self.with_rows(rows, |x| linear_chunk(xhat, x, w, Start::Bias(bias.data())))?;
            layer_norm_forward(xhat, out, rstd, gamma.data(), beta.data(), self.eps);
            Ok(())
        })?;
        let saved = HostSaved { weight: weight.clone(), gamma: gamma.clone(), xhat, rstd };
        Ok((Tensor::new([n, d], out)?, Saved::Host(saved)))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let saved = match (saved, grad.gpu()) {
            (Saved::Host(saved), None) => saved,
            _ => return Err(elsewhere(NAME)),
        };
        let (d, width) = saved.weight.matrix(NAME, "weight")?;
        struct Partial {
            weight: Buffer,
            bias: Vec<f32>,
            norm: LayerNormGrads,
        }
        let partial: Vec<Partial> = segments(self.features.len())
            .into_par_iter()
            .map(|segment| {
                let mut sums =
                    Partial { weight: Buffer::zeros(d * width), bias: vec![0.0; d], norm: LayerNormGrads::new(d) };
                let mut dy = vec![0.0; BACKWARD_ROWS * d];
                for start in segment.clone().step_by(BACKWARD_ROWS) {
                    let end = (start + BACKWARD_ROWS).min(segment.end);
                    let (dy, values) = (&mut dy[..(end - start) * d], start * d..end * d);
                    let (xhat, rstd) = (&saved.xhat[values.clone()], &saved.rstd[start..end]);
                    sums.norm.rows(dy, &grad.data()[values], xhat, rstd, saved.gamma.data());
                    simd!(dy.chunks_exact(d).for_each(|row| vector::add(&mut sums.bias, row)));
                    let dy = Mat::new(dy, end - start, d);
                    self.with_rows(&self.features.rows[start..end], |x| {
                        matmul(&mut sums.weight, width, 1.0, 1.0, dy.t(), x)
                    })?;
                }
                Ok(sums)
            })
            .collect::<Result<_>>()?;
        fn reduce<'a>(to: Option<&mut [f32]>, partial: &'a [Partial], part: impl Fn(&'a Partial) -> &'a [f32]) {
            if let Some(to) = to {
                partial.iter().for_each(|p| simd!(vector::add(to, part(p))));
            }
        }
        reduce(grads.get(0), &partial, |p| &p.weight);
        reduce(grads.get(1), &partial, |p| &p.bias);
        reduce(grads.get(2), &partial, |p| &p.norm.gamma);
        reduce(grads.get(3), &partial, |p| &p.norm.beta);
        Ok(())
    }

    fn forward_together(gpu: &Gpu, ops: &[Project], inputs: &[Vec<&Tensor>]) -> Result<Vec<(Tensor, Saved)>> {
        let checked = ops.iter().zip(inputs).map(|(op, inputs)| Ok((op, op.checked(inputs)?)));
        cuda::forward(gpu, checked.collect::<Result<_>>()?)
    }

    fn backward_together(gpu: &Gpu, reached: Vec<Reached<Project>>, grads: &mut InstanceGrads) -> Result<()> {
        cuda::backward(gpu, reached, grads)
    }
}
