//! Layers of networks on a tape, their weights found by name.

use super::config::ModelConfig;
use super::network::Noise;
use super::params::Variables;
use crate::autograd::{Tape, Var};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::{
    Activation, Attention, Combine, CrossAttention, Dropout, Features, Gather, LayerNorm, Linear, Mlp, Multiply,
    Normalize, Operand, Pairing, Pooling, Project, Score, SequencePool, Sum,
};
use crate::tensor::{FeatureRows, Indices, Ragged, Textbook};

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

    /// Rows of frozen features.
    pub fn features(&self, rows: &FeatureRows) -> Result<Var> {
        self.tape.apply(Features { rows: rows.clone(), gpu: self.gpu.cloned() }, &[])
    }

    /// Linear layer with an activation or none, of inputs laid side by side. Its cost takes a textbook to compute no more rows.
    pub fn linear(&self, name: &str, parts: &[&Var], activation: Option<Activation>) -> Result<Var> {
        let textbook_rows = parts.first().map_or(0, |part| part.tensor().shape()[0]);
        let weights = self.vars.group(name, ["weight", "bias"])?;
        let inputs: Vec<&Var> = weights.into_iter().chain(parts.iter().copied()).collect();
        self.tape.apply(Linear { activation, bias: true, textbook_rows }, &inputs)
    }

    /// The same of frozen features, with dropout.
    pub fn linear_of(
        &self,
        name: &str,
        rows: &FeatureRows,
        activation: Option<Activation>,
        (noise, stream): (Option<Noise>, u32),
    ) -> Result<Var> {
        let out = self.linear(name, &[&self.features(rows)?], activation)?;
        self.dropout(out, noise, stream)
    }

    /// Layer normalization.
    pub fn norm(&self, name: &str, x: &Var) -> Result<Var> {
        let [weight, bias] = self.vars.group(name, ["weight", "bias"])?;
        let (eps, textbook_rows) = (self.config.layer_norm_eps, x.tensor().shape()[0]);
        self.tape.apply(LayerNorm { eps, textbook_rows }, &[x, weight, bias])
    }

    /// Layer normalization of x and a linear layer of it.
    pub fn residual(&self, linear: &str, x: &Var, norm: &str) -> Result<Var> {
        self.norm(norm, &self.sum(&[(1.0, &self.linear(linear, &[x], None)?), (1.0, x)])?)
    }

    /// An activation function of each value.
    pub fn activate(&self, activation: Activation, x: &Var) -> Result<Var> {
        self.tape.apply(activation, &[x])
    }

    /// Rows of length 1.
    pub fn unit(&self, x: &Var) -> Result<Var> {
        self.tape.apply(Normalize, &[x])
    }

    /// Σ of tensors of one shape, each with its coefficient.
    pub fn sum(&self, terms: &[(f32, &Var)]) -> Result<Var> {
        let coefficients = terms.iter().map(|(coefficient, _)| *coefficient).collect();
        self.tape.apply(Sum { coefficients }, &terms.iter().map(|(_, x)| *x).collect::<Vec<_>>())
    }

    /// x ⊙ y of one shape, or each row of x times its value in y.
    pub fn multiply(&self, x: &Var, y: &Var) -> Result<Var> {
        self.tape.apply(Multiply, &[x, y])
    }

    /// The left item's row for each pair.
    pub fn gather(&self, pairs: &Pairing, x: &Var) -> Result<Var> {
        self.tape.apply(Gather { pairs: pairs.clone() }, &[x])
    }

    /// Mean or maximum of each sequence's rows.
    pub fn pool(&self, sequences: &Ragged, kind: Pooling, x: &Var) -> Result<Var> {
        self.tape.apply(SequencePool { sequences: sequences.clone(), kind }, &[x])
    }

    /// Dot product of each pair (1, pairs), of vectors of items or of pairs.
    pub fn dot(&self, pairs: &Pairing, operand: Operand, left: &Var, right: &Var) -> Result<Var> {
        self.tape.apply(Score { pairs: pairs.clone(), operands: vec![operand] }, &[left, right])
    }

    /// Cosine of each pair (1, pairs).
    pub fn cosine(&self, pairs: &Pairing, operand: Operand, left: &Var, right: &Var) -> Result<Var> {
        self.dot(pairs, operand, &self.unit(left)?, &self.unit(right)?)
    }

    /// Linear combinations, one for each row of coefficients, of rows (1, pairs).
    pub fn combine(&self, rows: &[&Var], coefficients: Vec<Vec<f32>>) -> Result<Var> {
        self.tape.apply(Combine { coefficients }, rows)
    }

    /// Rows (1, pairs) on top of each other.
    pub fn stack(&self, rows: &[&Var]) -> Result<Var> {
        let one = |i: usize| (0..rows.len()).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
        self.combine(rows, (0..rows.len()).map(one).collect())
    }

    /// Attention of each pair's queries to its keys, and where each pair's rows lie in it. `pairs` has sequences of queries
    /// on its left and of keys on its right.
    pub fn attention(
        &self,
        (heads, scale): (usize, f32),
        (query, queries): (&Var, &Ragged),
        (key, value, keys): (&Var, &Var, &Ragged),
        pairs: Pairing,
    ) -> Result<(Var, Ragged)> {
        let op = Attention::new(heads, scale, queries.clone(), keys.clone(), pairs)?;
        let output = op.output().clone();
        Ok((self.tape.apply(op, &[query, key, value])?, output))
    }

    /// Each item's query against its own sequence, with residual connection and layer normalization.
    pub fn own_attention(&self, name: &str, query: &Var, (tokens, sequences): (&Var, &Ragged)) -> Result<Var> {
        let pairs = (Pairing::identity(sequences.len()), sequences.offsets().clone());
        let textbook = sequences.textbook().sequences;
        self.cross_attention(name, query, (tokens, sequences), pairs, textbook)
    }
}

/// Sequences of one row each.
pub(super) fn single_rows(n: usize) -> Result<Ragged> {
    Ragged::new((0..n).map(|_| 1), Textbook { sequences: n, length: 1 })
}
