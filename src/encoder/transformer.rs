//! The block of a transformer encoder.

use rand::Rng;

use super::Compute;
use crate::encoder::loader::Loader;
use crate::error::{Error, Result};
use crate::ops::attention::{Attention, Heads};
use crate::ops::layer_norm::Norm;
use crate::ops::linear::{Activation, Linear};
use crate::random::{Purpose, generator};
use crate::tensor::{Rows, Sequences};

/// Sizes of a block.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of a token's state.
    pub width: usize,
    /// Of its MLP's hidden layer.
    pub inner: usize,
    /// Of its attention.
    pub heads: Heads,
    /// Of its norms.
    pub eps: f32,
    /// Of its MLP.
    pub activation: Activation,
}

impl Sizes {
    /// Checks what a configuration says.
    pub fn new(width: usize, inner: usize, heads: usize, eps: f32, activation: &str) -> Result<Sizes> {
        let activation = match activation {
            "quick_gelu" => Activation::QuickGelu,
            "gelu" | "gelu_python" => Activation::Gelu,
            "relu" => Activation::Relu,
            other => {
                let found = other.escape_debug();
                let reason = format!("hidden_act `{found}` is not supported; `gelu`, `quick_gelu` and `relu` are");
                return Err(Error::invalid(reason));
            }
        };
        if heads == 0 || width == 0 || inner == 0 || !width.is_multiple_of(heads) {
            return Err(Error::invalid(format!("{heads} attention heads do not divide {width}")));
        }
        let heads = Heads { count: heads, width: width / heads, causal: false };
        Ok(Sizes { width, inner, heads, eps, activation })
    }

    /// The same for a decoder, whose tokens see only those before them.
    pub fn causal(self) -> Sizes {
        Sizes { heads: Heads { causal: true, ..self.heads }, ..self }
    }
}

/// FLOPs of a transformer's blocks on one sequence of `length` rows: projections, attention, two layers of the MLP.
pub fn block_flops(layers: usize, width: usize, inner: usize, length: usize) -> u64 {
    (layers * (length * (8 * width * width + 4 * width * inner) + 4 * length * length * width)) as u64
}

/// Bytes that a block which normalizes first moves at least on these rows: its weights once, and what each of its steps
/// (two norms, four products, attention) takes and gives once. Residuals are f32, operands `operand` bytes each.
pub fn block_bytes(sizes: &Sizes, rows: usize, operand: usize) -> u64 {
    let Sizes { width, inner, .. } = *sizes;
    let weights = operand * (4 * width * width + 2 * width * inner) + 4 * (9 * width + inner);
    let norms = 2 * (4 + operand) * width;
    let attention = operand * (width + 3 * width) + operand * (3 * width + width) + (operand + 4 + 4) * width;
    let mlp = operand * (width + inner) + operand * inner + (4 + 4) * width;
    (weights + rows * (norms + attention + mlp)) as u64
}

/// Where a block's layers lie in a file, and on which side of their residuals it normalizes.
pub struct Layout {
    /// Normalizes the input of attention and of the MLP (CLIP), not the sums after them (BERT).
    pub norm_first: bool,
    /// Queries, keys and values.
    pub qkv: [&'static str; 3],
    /// What follows the attention.
    pub out: &'static str,
    /// The norm of the attention.
    pub norm1: &'static str,
    /// The MLP's two layers.
    pub up: &'static str,
    pub down: &'static str,
    /// The norm of the MLP.
    pub norm2: &'static str,
}

/// Attention and an MLP with residuals around both.
pub struct Block {
    norm_first: bool,
    norm1: Norm,
    qkv: Linear,
    attention: Attention,
    out: Linear,
    norm2: Norm,
    up: Linear,
    down: Linear,
}

impl Block {
    /// Reads a block.
    pub fn read(loader: &Loader, layout: &Layout, sizes: Sizes) -> Result<Block> {
        let Sizes { width, inner, heads, eps, activation } = sizes;
        // A norm that feeds products alone may round its output to their type; one that makes the next residual may not.
        let norm = |name| {
            let norm = loader.norm(name, width, eps)?;
            Ok(if layout.norm_first { norm } else { norm.wide() })
        };
        Ok(Block {
            norm_first: layout.norm_first,
            norm1: norm(layout.norm1)?,
            qkv: loader.dense_of(&layout.qkv, width, width)?,
            attention: Attention::new(heads, loader.element()?),
            out: loader.dense(layout.out, width, width)?,
            norm2: norm(layout.norm2)?,
            up: loader.dense(layout.up, inner, width)?.with(activation),
            down: loader.dense(layout.down, width, inner)?,
        })
    }

    /// A block that normalizes first, with weights drawn by seed, to measure with.
    pub fn random(sizes: Sizes, seed: u64, compute: &Compute) -> Result<Block> {
        let Sizes { width, inner, heads, eps, activation } = sizes;
        let mut rng = generator(seed, Purpose::Benchmark, 2);
        let norm = || Norm::new(vec![1.0; width], vec![0.0; width], eps, compute);
        let mut dense = |outputs: usize, inputs: usize| {
            let bound = 1.0 / (inputs as f32).sqrt();
            let weight: Vec<f32> = (0..outputs * inputs).map(|_| rng.random_range(-bound..bound)).collect();
            Linear::new(&weight, outputs, Some(vec![0.0; outputs]), compute)
        };
        Ok(Block {
            norm_first: true,
            norm1: norm()?,
            qkv: dense(3 * width, width)?,
            attention: Attention::new(heads, compute.element()?),
            out: dense(width, width)?,
            norm2: norm()?,
            up: dense(inner, width)?.with(activation),
            down: dense(width, inner)?,
        })
    }

    /// Updates the rows of sequences.
    pub fn forward(&self, x: &mut Rows, sequences: &Sequences) -> Result<()> {
        let qkv = match self.norm_first {
            true => self.qkv.forward(&self.norm1.forward(x)?)?,
            false => self.qkv.forward(x)?,
        };
        self.out.forward_onto(&self.attention.forward(&qkv, sequences)?, x)?;
        let inner = match self.norm_first {
            true => self.up.forward(&self.norm2.forward(x)?)?,
            false => {
                *x = self.norm1.forward(x)?;
                self.up.forward(x)?
            }
        };
        self.down.forward_onto(&inner, x)?;
        if !self.norm_first {
            *x = self.norm2.forward(x)?;
        }
        Ok(())
    }
}
