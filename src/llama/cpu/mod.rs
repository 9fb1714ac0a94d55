//! The decoder's operations on the CPU.

mod attention;
mod cache;

use std::sync::Arc;

use rayon::prelude::*;

pub use cache::Cache;

use super::backend::{Ask, Backend, Output, Span};
use super::matrix::Matrix;
use super::{Checkpoint, LlamaConfig, Precision};
use crate::device::cpu::matrix::{Matrix as View, project};
use crate::device::cpu::{Buffer, ROW_CHUNK, simd, vector};
use crate::error::{Error, Result};

/// The CPU: weights where they are, activations and sums in f32.
pub struct Cpu {
    config: LlamaConfig,
    frequencies: Vec<f32>,
    /// Keys and values are f32 where the weights are, else f16.
    exact: bool,
}

/// Activations (n, width).
pub struct Rows {
    values: Buffer,
    width: usize,
}

/// What all layers of a forward pass share.
pub struct Plan {
    tokens: Vec<u32>,
    spans: Vec<Span>,
    /// Cosines and sines of each row's angles (n, head_dim / 2, 2).
    turns: Vec<(f32, f32)>,
}

impl Cpu {
    /// For the decoder of this checkpoint.
    pub fn new(checkpoint: &Checkpoint) -> Cpu {
        let config = checkpoint.config().clone();
        let frequencies = config.rope.frequencies(config.head_dim);
        Cpu { config, frequencies, exact: checkpoint.precision() == Precision::F32 }
    }
}

impl Rows {
    fn scratch(rows: usize, width: usize) -> Rows {
        Rows { values: Buffer::scratch(rows * width), width }
    }

    fn len(&self) -> usize {
        self.values.len() / self.width
    }
}

impl Backend for Cpu {
    type Weight = Vec<Matrix>;
    type Gates = [Matrix; 2];
    type Gain = Vec<f32>;
    type Rows = Rows;
    type Cache = Cache;
    type Plan = Plan;

    fn weight(&self, stacked: Vec<Matrix>) -> Result<Vec<Matrix>> {
        Ok(stacked)
    }

    fn gates(&self, gate: Matrix, up: Matrix) -> Result<[Matrix; 2]> {
        Ok([gate, up])
    }

    fn gain(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        Ok(values)
    }

    fn cache(&self, prefix: Option<Arc<Cache>>, room: usize) -> Result<Cache> {
        Cache::new(&self.config, prefix, room, self.exact)
    }

    fn max_rows(&self) -> usize {
        // Enough to pay for packing the weights; the widest activations then take some tens of megabytes.
        1024
    }

    fn plan(&self, tokens: &[u32], spans: &[Span], _: &[&mut Cache]) -> Result<Plan> {
        let positions = spans.iter().flat_map(|span| span.position..span.position + span.rows);
        let turns = positions.flat_map(|position| {
            // The product is rounded to f32, as transformers rounds it.
            self.frequencies.iter().map(move |f| ((position as f32 * f).cos(), (position as f32 * f).sin()))
        });
        Ok(Plan { tokens: tokens.to_vec(), spans: spans.to_vec(), turns: turns.collect() })
    }

    fn execute(
        &self,
        plan: Plan,
        _: &[usize],
        ask: Ask,
        mut network: impl FnMut(&Plan) -> Result<Option<Rows>> + Send,
    ) -> Result<Output> {
        // Inside of the pool, whose threads then do not fall asleep between operations.
        rayon::scope(|_| {
            let logits = network(&plan)?;
            Ok(logits.map_or(Output::default(), |logits| ask.answer(&logits.values, logits.width)))
        })
    }

    fn embed(&self, plan: &Plan, table: &Vec<Matrix>) -> Result<Rows> {
        let [table] = &table[..] else { return Err(Error::shape("embed", "needs one table")) };
        let mut x = Rows::scratch(plan.tokens.len(), table.columns());
        let rows = x.values.par_chunks_exact_mut(table.columns()).zip(&plan.tokens);
        rows.for_each(|(row, &token)| table.row(token as usize, row));
        Ok(x)
    }

    fn rms_norm(&self, x: &Rows, gain: &Vec<f32>) -> Result<Rows> {
        let mut out = Rows::scratch(x.len(), x.width);
        let eps = self.config.rms_norm_eps;
        let chunk = ROW_CHUNK / 8 * x.width;
        out.values.par_chunks_mut(chunk).zip(x.values.par_chunks(chunk)).for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(gain.len()).zip(x.chunks_exact(gain.len())) {
                simd!(vector::rms_norm(out, x, gain, eps));
            }
        });
        Ok(out)
    }

    fn linear(&self, x: &Rows, weight: &Vec<Matrix>) -> Result<Rows> {
        stacked(x, weight)
    }

    fn logits(&self, x: &Rows, weight: &Vec<Matrix>) -> Result<Rows> {
        self.linear(x, weight)
    }

    fn add_linear(&self, sum: &mut Rows, x: &Rows, weight: &Vec<Matrix>) -> Result<()> {
        project(&mut sum.values, &x.values, &views(weight), true)
    }

    fn attend(&self, plan: &Plan, layer: usize, mut qkv: Rows, caches: &mut [&mut Cache]) -> Result<Rows> {
        attention::rotate(&self.config, &mut qkv, &plan.turns);
        for (cache, span) in caches.iter_mut().zip(&plan.spans) {
            cache.store(
                layer,
                &qkv.values[span.start * qkv.width..][..span.rows * qkv.width],
                self.config.query_width(),
            );
        }
        attention::attend(&self.config, layer, &qkv, &plan.spans, caches)
    }

    fn gated(&self, x: &Rows, gates: &[Matrix; 2]) -> Result<Rows> {
        let gate_up = stacked(x, gates)?;
        let inner = gate_up.width / 2;
        let mut out = Rows::scratch(gate_up.len(), inner);
        out.values.par_chunks_mut(inner).zip(gate_up.values.par_chunks(2 * inner)).for_each(|(out, row)| {
            let (gate, up) = row.split_at(inner);
            simd!(vector::swiglu(out, gate, up));
        });
        Ok(out)
    }

    fn select(&self, x: Rows, rows: &[usize]) -> Result<Rows> {
        let mut out = Rows::scratch(rows.len(), x.width);
        for (out, &row) in out.values.chunks_exact_mut(x.width).zip(rows) {
            out.copy_from_slice(&x.values[row * x.width..][..x.width]);
        }
        Ok(out)
    }
}

/// x Wᵀ of matrices one below the other.
fn stacked(x: &Rows, weight: &[Matrix]) -> Result<Rows> {
    let mut y = Rows::scratch(x.len(), weight.iter().map(Matrix::rows).sum());
    project(&mut y.values, &x.values, &views(weight), false)?;
    Ok(y)
}

fn views(weight: &[Matrix]) -> Vec<View<'_>> {
    weight.iter().map(Matrix::view).collect()
}
