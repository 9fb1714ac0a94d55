//! The parameters of an encoder: their names in Hugging Face's files, their shapes, and what each does.

use crate::encoder::transformer::Layout;

/// What a parameter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Vectors of tokens.
    Tokens,
    /// Vectors of places.
    Positions,
    /// Vectors of the types of tokens.
    Types,
    /// The vector of the class token, or the query that pools patches.
    Class,
    /// The patch embedding.
    Filters,
    /// Weight of a layer normalization.
    Norm,
    /// What is added, by a layer or by a layer normalization.
    Bias,
    /// Weight of a layer of queries.
    Query,
    /// Weight of a layer of keys.
    Key,
    /// Weight of a layer of values.
    Value,
    /// Weight of the layer that widens a block's states.
    Up,
    /// Weight of the layer after a block's attention.
    AttentionOut,
    /// Weight of the layer that a block's wide states are narrowed by.
    Down,
    /// Weight of a projection to global vectors.
    Projection,
    /// The mean of a batch normalization's inputs, or of their variance what it multiplies by: they stay as they are.
    Statistics,
    /// Logarithm of what cosines are multiplied by, or what is added to them: of the loss of pre-training alone.
    LogScale,
}

/// One of the two towers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tower {
    Text,
    Vision,
}

/// Where in its tower a parameter lies, from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What makes the first block's input.
    Input,
    /// A block, from 0.
    Block(usize),
    /// What makes the features of the last block's output.
    Output,
}

/// A parameter as files have it.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub role: Role,
    pub tower: Tower,
    pub depth: Depth,
    /// Whether its tower may be read: not where another encoder stands for it.
    pub read: bool,
}

impl Parameter {
    /// Number of scalars.
    pub fn count(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

/// A list of parameters as it grows.
pub(in crate::encoder) struct List {
    /// Where those lie that are added next.
    pub tower: Tower,
    pub depth: Depth,
    pub parameters: Vec<Parameter>,
}

impl List {
    pub fn of(tower: Tower) -> List {
        List { tower, depth: Depth::Input, parameters: Vec::new() }
    }

    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], role: Role) {
        let (name, shape) = (name.into(), shape.to_vec());
        self.parameters.push(Parameter { name, shape, role, tower: self.tower, depth: self.depth, read: true });
    }

    pub fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width], Role::Norm);
        self.add(format!("{name}.bias"), &[width], Role::Bias);
    }

    pub fn linear(&mut self, name: &str, outputs: usize, inputs: usize, role: Role) {
        self.add(format!("{name}.weight"), &[outputs, inputs], role);
        self.add(format!("{name}.bias"), &[outputs], Role::Bias);
    }

    /// Blocks under their numbers after `prefix`, then what follows them.
    pub fn blocks(&mut self, prefix: &str, layout: &Layout, count: usize, (width, inner): (usize, usize)) {
        for index in 0..count {
            self.depth = Depth::Block(index);
            let name = |layer: &str| format!("{prefix}.{index}.{layer}");
            self.norm(&name(layout.norm1), width);
            for (layer, role) in layout.qkv.iter().zip([Role::Query, Role::Key, Role::Value]) {
                self.linear(&name(layer), width, width, role);
            }
            self.norm(&name(layout.norm2), width);
            self.linear(&name(layout.up), inner, width, Role::Up);
            self.linear(&name(layout.out), width, width, Role::AttentionOut);
            self.linear(&name(layout.down), width, inner, Role::Down);
        }
        self.depth = Depth::Output;
    }
}
