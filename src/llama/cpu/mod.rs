//! The decoder's operations on the CPU.

mod cache;

use std::sync::Arc;

use rayon::prelude::*;

pub use cache::Cache;

use super::backend::{Ask, Backend, Output, Span};
use super::{Checkpoint, LlamaConfig, Precision};
use crate::device::cpu::{simd, vector};
use crate::error::{Error, Result};
use crate::ops::linear::stored::project;
use crate::ops::paged_attention::{Heads, attend, rotate};
use crate::ops::rms_norm::rms_norm;
use crate::tensor::{Element, HostRows, Weight};

/// The CPU: weights where they are, activations and sums in f32.
pub struct Cpu {
    config: LlamaConfig,
    frequencies: Vec<f32>,
    /// Keys and values are f32 where the weights are, else f16.
    heads: Heads,
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
        let element = if checkpoint.precision() == Precision::F32 { Element::F32 } else { Element::F16 };
        let heads = Heads { queries: config.heads, kv: config.kv_heads, size: config.head_dim, element };
        Cpu { config, frequencies, heads }
    }
}

impl Backend for Cpu {
    type Weight = Vec<Weight>;
    type Gates = [Weight; 2];
    type Gain = Vec<f32>;
    type Rows = HostRows;
    type Cache = Cache;
    type Plan = Plan;

    fn weight(&self, stacked: Vec<Weight>) -> Result<Vec<Weight>> {
        Ok(stacked)
    }

    fn gates(&self, gate: Weight, up: Weight) -> Result<[Weight; 2]> {
        Ok([gate, up])
    }

    fn gain(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        Ok(values)
    }

    fn cache(&self, prefix: Option<Arc<Cache>>, room: usize) -> Result<Cache> {
        Cache::new(&self.config, prefix, room, self.heads.element == Element::F32)
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
        mut network: impl FnMut(&Plan) -> Result<Option<HostRows>> + Send,
    ) -> Result<Output> {
        // Inside of the pool, whose threads then do not fall asleep between operations.
        rayon::scope(|_| {
            let logits = network(&plan)?;
            Ok(logits.map_or(Output::default(), |logits| ask.answer(&logits.values, logits.width)))
        })
    }

    fn embed(&self, plan: &Plan, table: &Vec<Weight>) -> Result<HostRows> {
        let [table] = &table[..] else { return Err(Error::shape("embed", "needs one table")) };
        let mut x = HostRows::scratch(plan.tokens.len(), table.columns());
        let rows = x.values.par_chunks_exact_mut(table.columns()).zip(&plan.tokens);
        rows.for_each(|(row, &token)| table.row(token as usize, row));
        Ok(x)
    }

    fn rms_norm(&self, x: &HostRows, gain: &Vec<f32>) -> Result<HostRows> {
        let mut out = HostRows::scratch(x.count(), x.width);
        let eps = self.config.rms_norm_eps;
        rms_norm(&mut out.values, &x.values, gain, eps);
        Ok(out)
    }

    fn linear(&self, x: &HostRows, weight: &Vec<Weight>) -> Result<HostRows> {
        stacked(x, weight)
    }

    fn logits(&self, x: &HostRows, weight: &Vec<Weight>) -> Result<HostRows> {
        self.linear(x, weight)
    }

    fn add_linear(&self, sum: &mut HostRows, x: &HostRows, weight: &Vec<Weight>) -> Result<()> {
        project(&mut sum.values, &x.values, weight, true)
    }

    fn attend(&self, plan: &Plan, layer: usize, mut qkv: HostRows, caches: &mut [&mut Cache]) -> Result<HostRows> {
        rotate(&self.heads, &mut qkv.values, &plan.turns);
        for (cache, span) in caches.iter_mut().zip(&plan.spans) {
            cache.store(
                layer,
                &qkv.values[span.start * qkv.width..][..span.rows * qkv.width],
                self.config.query_width(),
            );
        }
        let context = attend(&self.heads, layer, &qkv.values, &plan.spans, caches)?;
        Ok(HostRows { values: context, width: self.config.query_width() })
    }

    fn gated(&self, x: &HostRows, gates: &[Weight; 2]) -> Result<HostRows> {
        let gate_up = stacked(x, gates)?;
        let inner = gate_up.width / 2;
        let mut out = HostRows::scratch(gate_up.count(), inner);
        out.values.par_chunks_mut(inner).zip(gate_up.values.par_chunks(2 * inner)).for_each(|(out, row)| {
            let (gate, up) = row.split_at(inner);
            simd!(vector::swiglu(out, gate, up));
        });
        Ok(out)
    }

    fn select(&self, x: HostRows, rows: &[usize]) -> Result<HostRows> {
        let mut out = HostRows::scratch(rows.len(), x.width);
        for (out, &row) in out.values.chunks_exact_mut(x.width).zip(rows) {
            out.copy_from_slice(&x.values[row * x.width..][..x.width]);
        }
        Ok(out)
    }
}

/// x Wᵀ of matrices one below the other.
fn stacked(x: &HostRows, weight: &[Weight]) -> Result<HostRows> {
    let mut y = HostRows::scratch(x.count(), weight.iter().map(Weight::rows).sum());
    project(&mut y.values, &x.values, weight, false)?;
    Ok(y)
}
