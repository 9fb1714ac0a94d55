//! Layers of networks on a tape, their weights found by name.

use super::config::ModelConfig;
use super::network::Noise;
use super::params::Variables;
use crate::autograd::{Tape, Var};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::{CrossAttention, Dropout, Mlp, Pairing, Project};
use crate::tensor::{FeatureRows, Indices, Ragged};

/// A configuration on a tape, with the layers that networks are built of.
pub struct Layers<'a> {
    /// Widths, heads and the like.
    pub config: &'a ModelConfig,
    /// What the layers are applied on.
    pub tape: &'a Tape,
    /// The weights.
    pub vars: &'a Variables,
    /// Where the weights lie; `None` for the host.
    pub gpu: Option<&'a Gpu>,
}

impl Layers<'_> {
    /// Linear layer with layer normalization on features (Eq. 2), and dropout under noise, whose stream is the second number.
    pub fn project(
        &self,
        name: &str,
        features: &FeatureRows,
        textbook_rows: usize,
        (noise, stream): (Option<Noise>, u32),
    ) -> Result<Var> {
        let weights = self.vars.group(name, ["linear.weight", "linear.bias", "norm.weight", "norm.bias"])?;
        let op = Project { features: features.clone(), eps: self.config.layer_norm_eps, textbook_rows };
        let out = self.tape.apply(op, &weights)?;
        self.dropout(out, noise, stream)
    }

    /// Dropout of the configuration's probability; without noise nothing is dropped. Each use of a step needs its own stream.
    pub fn dropout(&self, x: Var, noise: Option<Noise>, stream: u32) -> Result<Var> {
        match noise {
            Some(Noise { seed, step }) if self.config.dropout > 0.0 => {
                let op = Dropout { p: self.config.dropout, seed, stream: (step, stream) };
                self.tape.apply(op, &[&x])
            }
            _ => Ok(x),
        }
    }

    /// Two linear layers with ReLU between them, on inputs laid side by side.
    pub fn mlp(&self, name: &str, parts: &[&Var], textbook_rows: usize) -> Result<Var> {
        let weights = self.vars.group(name, ["hidden.weight", "hidden.bias", "out.weight", "out.bias"])?;
        let inputs: Vec<&Var> = weights.into_iter().chain(parts.iter().copied()).collect();
        self.tape.apply(Mlp { textbook_rows }, &inputs)
    }

    /// Each pair's query against its sequence (Eq. 5, 6, 9); with the pairs, where their attention weights begin.
    pub fn cross_attention(
        &self,
        name: &str,
        query: &Var,
        (tokens, sequences): (&Var, &Ragged),
        (pairs, starts): (Pairing, Indices),
        textbook_pairs: usize,
    ) -> Result<Var> {
        let layers = ["query.weight", "query.bias", "key.weight", "key.bias", "value.weight", "value.bias"];
        let rest = ["out.weight", "out.bias", "norm.weight", "norm.bias"];
        let inputs: Vec<&Var> = [query, tokens]
            .into_iter()
            .chain(self.vars.group(name, layers)?)
            .chain(self.vars.group(name, rest)?)
            .collect();
        let ModelConfig { heads, layer_norm_eps: eps, .. } = *self.config;
        let op = CrossAttention { heads, eps, sequences: sequences.clone(), pairs, starts, textbook_pairs };
        self.tape.apply(op, &inputs)
    }
}
