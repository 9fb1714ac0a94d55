//! Reading layers from a model's weights.

use std::path::Path;

use crate::error::Result;
use crate::ops::convolution::{Convolution, Filters};
use crate::ops::embedding::{Embedding, PatchEmbedding};
use crate::ops::layer_norm::Norm;
use crate::ops::linear::Linear;
use crate::tensor::{Compute, Element, Shards, Tensor};

/// Which part of a file's tensor is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// All of it.
    Whole,
    /// One of three parts that lie below each other: queries, keys, values.
    Third(usize),
    /// All of it, with rows and columns changed for each other.
    Transposed,
}

/// Where a file of another kind keeps a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    name: String,
    part: Part,
}

impl Alias {
    /// A part of the tensor of that name.
    pub fn new(name: impl Into<String>, part: Part) -> Alias {
        Alias { name: name.into(), part }
    }

    /// The tensor of the same name.
    pub fn same(name: &str) -> Alias {
        Alias::new(name, Part::Whole)
    }

    /// The tensor's name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which part of it is meant.
    pub fn part(&self) -> Part {
        self.part
    }

    /// Reads it, if it has this shape.
    pub fn read(&self, shards: &Shards, shape: &[usize]) -> Result<Tensor> {
        match (self.part, shape) {
            (Part::Third(third), [rows, rest @ ..]) => {
                let all = shards.tensor_of(&self.name, &[&[3 * rows], rest].concat())?;
                let len = all.len() / 3;
                Tensor::new(shape, all.data()[third * len..][..len].to_vec())
            }
            (Part::Transposed, &[rows, columns]) => {
                let turned = shards.tensor_of(&self.name, &[columns, rows])?;
                let values = turned.data();
                Tensor::new(
                    shape,
                    (0..rows * columns).map(|i| values[i % columns * rows + i / columns]).collect::<Vec<_>>(),
                )
            }
            _ => shards.tensor_of(&self.name, shape),
        }
    }
}

/// Makes the layers of an encoder from the tensors of a file, for where and how it computes.
pub struct Loader<'a> {
    shards: &'a Shards,
    /// What stands before each name.
    prefix: String,
    /// Where a file of another kind keeps what is called so.
    alias: Option<fn(&str) -> Alias>,
    compute: &'a Compute,
}

impl<'a> Loader<'a> {
    /// For all tensors of a model.
    pub fn new(shards: &'a Shards, compute: &'a Compute) -> Loader<'a> {
        Loader { shards, prefix: String::new(), alias: None, compute }
    }

    /// The same for a file that keeps its tensors elsewhere.
    pub fn with_aliases(self, alias: fn(&str) -> Alias) -> Loader<'a> {
        Loader { alias: Some(alias), ..self }
    }

    /// The same for tensors whose names go on with `part.` if there is one called `part.known`: models are published
    /// alone and as part of larger ones.
    pub fn under_if(self, part: &str, known: &str) -> Loader<'a> {
        if self.contains(&format!("{part}.{known}")) { self.under(part) } else { self }
    }

    /// The same for tensors whose names go on with `part.`.
    pub fn under(&self, part: &str) -> Loader<'a> {
        Loader { prefix: format!("{}{part}.", self.prefix), ..*self }
    }

    /// Type of the operands of the layers' products. Fails if layers do not compute in the precision.
    pub fn element(&self) -> Result<Element> {
        self.compute.element()
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        let name = format!("{}{name}", self.prefix);
        self.shards.contains(&self.alias.map_or(name.clone(), |alias| alias(&name).name))
    }

    /// The file that holds a tensor of that name, if there is one.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        let full = format!("{}{name}", self.prefix);
        let name = self.alias.map_or(full.clone(), |alias| alias(&full).name);
        self.shards.reader(&name).ok().map(|reader| reader.path())
    }

    /// A tensor of this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        match self.alias {
            Some(alias) => alias(&name).read(self.shards, shape),
            None => self.shards.tensor_of(&name, shape),
        }
    }

    /// `name.weight` (outputs, inputs), `name.bias`.
    pub fn dense(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        self.dense_of(&[name], outputs, inputs)
    }

    /// `name.weight` (outputs, inputs) without a bias.
    pub fn projection(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        Linear::new(weight.data(), outputs, None, self.compute)
    }

    /// Several layers of the same input as one, their outputs side by side.
    pub fn dense_of(&self, names: &[&str], outputs: usize, inputs: usize) -> Result<Linear> {
        // Grows with what is read: the sizes are a configuration's until a tensor has them.
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for name in names {
            weight.extend_from_slice(self.tensor(&format!("{name}.weight"), &[outputs, inputs])?.data());
            bias.extend_from_slice(self.tensor(&format!("{name}.bias"), &[outputs])?.data());
        }
        Linear::new(&weight, names.len() * outputs, Some(bias), self.compute)
    }

    /// A tensor of a normalization, `name.weight` or `name.bias`, or as old files call them, `name.gamma` or `name.beta`.
    pub fn of_norm(&self, name: &str, width: usize) -> Result<Tensor> {
        let old = name.strip_suffix("weight").map(|layer| format!("{layer}gamma"));
        let old = old.or_else(|| name.strip_suffix("bias").map(|layer| format!("{layer}beta")));
        self.tensor(old.as_deref().filter(|old| self.contains(old)).unwrap_or(name), &[width])
    }

    /// `name.weight` and `name.bias`.
    pub fn norm(&self, name: &str, width: usize, eps: f32) -> Result<Norm> {
        let [gamma, beta] = ["weight", "bias"].map(|part| self.of_norm(&format!("{name}.{part}"), width));
        Norm::new(&gamma?, &beta?, eps, self.compute)
    }

    /// `tokens.weight` (vocabulary, width) and `positions.weight` (most tokens, width), to whose rows `shift` is added.
    pub fn embedding(
        &self,
        (tokens, vocabulary): (&str, usize),
        (positions, most): (&str, usize),
        width: usize,
        shift: Option<Tensor>,
    ) -> Result<Embedding> {
        let tokens = self.tensor(&format!("{tokens}.weight"), &[vocabulary, width])?;
        let mut positions = self.tensor(&format!("{positions}.weight"), &[most, width])?;
        if let Some(shift) = shift {
            let shift = shift.data().get(..width).unwrap_or_default();
            for row in positions.data_mut().chunks_exact_mut(width) {
                row.iter_mut().zip(shift).for_each(|(x, shift)| *x += shift);
            }
        }
        Embedding::new(&tokens, &positions, self.compute)
    }

    /// `class` (width) and `positions.weight` (length, width).
    pub fn class_and_positions(
        &self,
        class: &str,
        positions: &str,
        length: usize,
        width: usize,
    ) -> Result<PatchEmbedding> {
        let class = self.tensor(class, &[width])?;
        let positions = self.tensor(&format!("{positions}.weight"), &[length, width])?;
        PatchEmbedding::new(Some(&class), &positions, self.compute)
    }

    /// `positions.weight` (length, width), to whose rows the convolution's bias `patches.bias` is added, without a class.
    pub fn positions(&self, patches: &str, positions: &str, length: usize, width: usize) -> Result<PatchEmbedding> {
        let bias = self.tensor(&format!("{patches}.bias"), &[width])?;
        let mut positions = self.tensor(&format!("{positions}.weight"), &[length, width])?;
        for row in positions.data_mut().chunks_exact_mut(width) {
            row.iter_mut().zip(bias.data()).for_each(|(x, bias)| *x += bias);
        }
        PatchEmbedding::new(None, &positions, self.compute)
    }

    /// `name.weight` (outputs, inputs, kernel, kernel) without a bias.
    pub fn convolution(&self, name: &str, filters: Filters) -> Result<Convolution> {
        Convolution::new(self.filters(name, filters)?.data(), filters, None, self.compute)
    }

    /// `convolution.weight` (outputs, inputs, kernel, kernel) followed by the batch normalization `normalization`, which
    /// in inference is a factor and a bias of each output: `gamma (y - mean) / sqrt(variance + eps) + beta`.
    pub fn normalized_convolution(&self, filters: Filters, eps: f32) -> Result<Convolution> {
        let mut weight = self.filters("convolution", filters)?;
        let part = |part: &str| -> Result<Vec<f32>> {
            Ok(self.tensor(&format!("normalization.{part}"), &[filters.outputs])?.data().to_vec())
        };
        let (gamma, mut bias) = (part("weight")?, part("bias")?);
        let (mean, variance) = (part("running_mean")?, part("running_var")?);
        let per_output = (weight.len() / filters.outputs.max(1)).max(1);
        for (i, weights) in weight.data_mut().chunks_exact_mut(per_output).enumerate() {
            let factor = gamma[i] / (variance[i] + eps).sqrt();
            weights.iter_mut().for_each(|weight| *weight *= factor);
            bias[i] -= mean[i] * factor;
        }
        Convolution::new(weight.data(), filters, Some(bias), self.compute)
    }

    fn filters(&self, name: &str, Filters { outputs, inputs, kernel, .. }: Filters) -> Result<Tensor> {
        self.tensor(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel])
    }
}
