//! Layers of networks on a tape, their weights found by name.

use super::batch::Source;
use super::config::ModelConfig;
use super::network::Noise;
use crate::autograd::{Tape, Var, Variables};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::{
    Activation, Attention, Combine, CrossAttention, Dropout, Features, Gather, LayerNorm, Linear, Mlp, MultiPool,
    Multiply, Normalize, Operand, Pairing, Pooling, Project, Score, SequencePool, Sum,
};
use crate::tensor::{Indices, Ragged, Textbook};

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
    /// Linear layers with layer normalization on features (Eq. 2), and dropout under noise, all at once.
    pub fn projections(&self, of: &[ProjectionOf], noise: Option<Noise>) -> Result<Vec<Var>> {
        let eps = self.config.layer_norm_eps;
        let (mut ops, mut weights) = (Vec::new(), Vec::new());
        // Dropout reads rows one by one.
        let drops = noise.is_some() && self.config.dropout > 0.0;
        for ProjectionOf { name, features, sequences, textbook_rows, .. } in of {
            if let Source::Stored(features) = features {
                let sequences = sequences.filter(|_| !drops).cloned();
                ops.push(Project { features: features.clone(), eps, textbook_rows: *textbook_rows, sequences });
                let layers = ["linear.weight", "linear.bias", "norm.weight", "norm.bias"];
                weights.push(self.vars.group(name, layers)?.to_vec());
            }
        }
        let mut stored = self.tape.apply_all(ops, &weights)?.into_iter();
        let project = |of: &ProjectionOf| {
            let x = match of.features {
                Source::Stored(_) => stored.next().ok_or_else(|| Error::invalid("a projection without output"))?,
                Source::Computed(x) => {
                    self.norm(&format!("{}.norm", of.name), &self.linear(&format!("{}.linear", of.name), &[x], None)?)?
                }
            };
            self.dropout(x, of.features, noise, of.stream)
        };
        of.iter().map(project).collect()
    }

    /// Dropout of the configuration's probability; without noise nothing is dropped. Each use of a step needs its own stream;
    /// x has a row of each of `rows`.
    pub fn dropout(&self, x: Var, rows: &Source, noise: Option<Noise>, stream: u32) -> Result<Var> {
        match noise {
            Some(Noise { seed, step }) if self.config.dropout > 0.0 => {
                let (p, places) = (self.config.dropout, rows.stored().and_then(|rows| rows.places().cloned()));
                let op = Dropout { p, seed, stream: (step, stream), places };
                self.tape.apply(op, &[&x])
            }
            _ => Ok(x),
        }
    }

    /// Two linear layers with ReLU between them, on inputs laid side by side, all at once.
    pub fn mlps(&self, of: &[MlpOf]) -> Result<Vec<Var>> {
        let mut inputs = Vec::with_capacity(of.len());
        for MlpOf { name, parts, .. } in of {
            let weights = self.vars.group(name, ["hidden.weight", "hidden.bias", "out.weight", "out.bias"])?;
            inputs.push([&weights[..], parts].concat());
        }
        self.tape.apply_all(of.iter().map(|of| Mlp { textbook_rows: of.textbook_rows }).collect(), &inputs)
    }

    /// Each pair's query against its sequence (Eq. 5, 6, 9), all at once.
    pub fn cross_attentions(&self, of: Vec<AttentionOf>) -> Result<Vec<Var>> {
        let layers = ["query.weight", "query.bias", "key.weight", "key.bias", "value.weight", "value.bias"];
        let rest = ["out.weight", "out.bias", "norm.weight", "norm.bias"];
        let mut inputs = Vec::with_capacity(of.len());
        for AttentionOf { name, query, tokens, .. } in &of {
            let (layers, rest) = (self.vars.group(name, layers)?, self.vars.group(name, rest)?);
            inputs.push([&[*query, *tokens][..], &layers, &rest].concat());
        }
        let ModelConfig { heads, layer_norm_eps: eps, .. } = *self.config;
        let op = |AttentionOf { sequences, pairs, starts, textbook_pairs, .. }: AttentionOf| CrossAttention {
            heads,
            eps,
            sequences: sequences.clone(),
            pairs,
            starts,
            textbook_pairs,
        };
        self.tape.apply_all(of.into_iter().map(op).collect(), &inputs)
    }

    /// Maximum and mean over sequences, beside their global vectors (Eq. 3), all at once: each of rows and global vectors.
    pub fn multi_pools(&self, of: &[(&Ragged, [&Var; 2])]) -> Result<Vec<Var>> {
        let ops = of.iter().map(|(sequences, _)| MultiPool { sequences: (*sequences).clone() }).collect();
        self.tape.apply_all(ops, &of.iter().map(|(_, inputs)| inputs.to_vec()).collect::<Vec<_>>())
    }

    /// Rows of features as they are.
    pub fn features(&self, rows: &Source) -> Result<Var> {
        match rows {
            Source::Stored(rows) => self.tape.apply(Features { rows: rows.clone(), gpu: self.gpu.cloned() }, &[]),
            Source::Computed(x) => Ok(x.clone()),
        }
    }

    /// Linear layer with an activation or none, of inputs laid side by side. Its cost takes a textbook to compute no more rows.
    pub fn linear(&self, name: &str, parts: &[&Var], activation: Option<Activation>) -> Result<Var> {
        let textbook_rows = parts.first().map_or(0, |part| part.tensor().shape()[0]);
        let weights = self.vars.group(name, ["weight", "bias"])?;
        let inputs: Vec<&Var> = weights.into_iter().chain(parts.iter().copied()).collect();
        self.tape.apply(Linear { activation, bias: true, textbook_rows }, &inputs)
    }

    /// The same of features, with dropout.
    pub fn linear_of(
        &self,
        name: &str,
        rows: &Source,
        activation: Option<Activation>,
        (noise, stream): (Option<Noise>, u32),
    ) -> Result<Var> {
        let out = self.linear(name, &[&self.features(rows)?], activation)?;
        self.dropout(out, rows, noise, stream)
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
        let mut attended = self.cross_attentions(vec![AttentionOf::own(name.into(), query, (tokens, sequences))])?;
        attended.pop().ok_or_else(|| Error::invalid("an attention without output"))
    }
}

/// Features to project.
pub struct ProjectionOf<'a> {
    /// Of the layer.
    pub name: String,
    pub features: &'a Source,
    /// Those that the rows form, if attention and pooling alone read them.
    pub sequences: Option<&'a Ragged>,
    pub textbook_rows: usize,
    /// Of the noise: each use of a step needs its own.
    pub stream: u32,
}

/// What an MLP is applied on.
pub struct MlpOf<'a> {
    /// Of the layer.
    pub name: String,
    /// Laid side by side.
    pub parts: Vec<&'a Var>,
    pub textbook_rows: usize,
}

/// Queries and the sequences that they attend to.
pub struct AttentionOf<'a> {
    /// Of the layer.
    pub name: String,
    pub query: &'a Var,
    pub tokens: &'a Var,
    pub sequences: &'a Ragged,
    /// Left: query, right: sequence.
    pub pairs: Pairing,
    /// Where each pair's attention weights begin.
    pub starts: Indices,
    pub textbook_pairs: usize,
}

impl<'a> AttentionOf<'a> {
    /// Each item's query against its own sequence.
    pub fn own(name: String, query: &'a Var, (tokens, sequences): (&'a Var, &'a Ragged)) -> AttentionOf<'a> {
        // Each item's weights begin where its sequence does.
        let (pairs, starts) = (Pairing::identity(sequences.len()), sequences.offsets().clone());
        let textbook_pairs = sequences.textbook().sequences;
        AttentionOf { name, query, tokens, sequences, pairs, starts, textbook_pairs }
    }
}

/// Sequences of one row each.
pub(super) fn single_rows(n: usize) -> Result<Ragged> {
    Ragged::new((0..n).map(|_| 1), Textbook { sequences: n, length: 1 })
}
