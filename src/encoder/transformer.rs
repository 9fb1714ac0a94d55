//! The block of a transformer encoder.

use rand::Rng;

use super::Compute;
use crate::autograd::Cost;
use crate::encoder::loader::Loader;
use crate::error::{Error, Result};
use crate::ops::attention::{self, Heads, SelfAttention};
use crate::ops::layer_norm::{self, Norm};
use crate::ops::linear::{self, Activation, Linear};
use crate::random::{Purpose, generator};
use crate::tensor::{Element, Sequences, Tensor};

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
            "gelu_pytorch_tanh" | "gelu_new" => Activation::TanhGelu,
            "relu" => Activation::Relu,
            other => {
                let found = other.escape_debug();
                let reason = format!(
                    "hidden_act `{found}` is not supported; `gelu`, `quick_gelu`, `gelu_pytorch_tanh` and `relu` are"
                );
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

/// What a block that normalizes first costs on sequences of these lengths: two norms, four products, attention. Residuals are
/// f32, operands `operand`.
pub fn block_cost(sizes: &Sizes, lengths: &[usize], operand: Element) -> Cost {
    let Sizes { width, inner, heads, .. } = *sizes;
    let rows = lengths.iter().sum();
    let product = |inputs, outputs| linear::cost(rows, (inputs, outputs), operand, operand, false);
    let onto = |inputs| linear::cost(rows, (inputs, width), operand, Element::F32, true);
    let products = product(width, 3 * width) + onto(width) + product(width, inner) + onto(inner);
    layer_norm::cost(rows, width, operand) * 2 + products + attention::cost(lengths, heads, operand)
}

/// Parameters of a block: four products of attention, two of the MLP, each with its bias, and two normalizations.
pub fn block_parameters(width: usize, inner: usize) -> u64 {
    (4 * width * (width + 1) + width * (inner + 1) + inner * (width + 1) + 4 * width) as u64
}

/// Where a block's layers lie in a file, and on which side of their residuals it normalizes.
#[derive(Clone, Copy)]
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

impl Layout {
    /// Of CLIP's towers, and of SigLIP's.
    pub const CLIP: Layout = Layout {
        norm_first: true,
        qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        out: "self_attn.out_proj",
        norm1: "layer_norm1",
        up: "mlp.fc1",
        down: "mlp.fc2",
        norm2: "layer_norm2",
    };
}

/// Attention and an MLP with residuals around both.
pub struct Block {
    norm_first: bool,
    norm1: Norm,
    qkv: Linear,
    attention: SelfAttention,
    out: Linear,
    norm2: Norm,
    up: Linear,
    down: Linear,
}

impl Block {
    /// Reads blocks under their numbers after `prefix`, and says if the file has more of them.
    pub fn read_all(
        loader: &Loader,
        (prefix, layout): (&str, &Layout),
        count: usize,
        sizes: Sizes,
    ) -> Result<Vec<Block>> {
        let of = |i: usize| loader.under(&format!("{prefix}.{i}"));
        if let Some(file) = of(count).file_of(&format!("{}.weight", layout.norm1)) {
            let file = file.display();
            tracing::warn!(
                "{file}: has more blocks than the {count} that its configuration names; the others are left out"
            );
        }
        (0..count).map(|i| Block::read(&of(i), layout, sizes)).collect()
    }

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
            attention: SelfAttention::new(heads, loader.element()?),
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
        let [ones, zeros] = [1.0, 0.0].map(|value| Tensor::filled([width], value, None));
        let (ones, zeros) = (ones?, zeros?);
        let norm = || Norm::new(&ones, &zeros, eps, compute);
        let mut dense = |outputs: usize, inputs: usize| {
            let bound = 1.0 / (inputs as f32).sqrt();
            let weight: Vec<f32> = (0..outputs * inputs).map(|_| rng.random_range(-bound..bound)).collect();
            Linear::new(&weight, outputs, Some(vec![0.0; outputs]), compute)
        };
        Ok(Block {
            norm_first: true,
            norm1: norm()?,
            qkv: dense(3 * width, width)?,
            attention: SelfAttention::new(heads, compute.element()?),
            out: dense(width, width)?,
            norm2: norm()?,
            up: dense(inner, width)?.with(activation),
            down: dense(width, inner)?,
        })
    }

    /// Updates the rows of sequences.
    pub fn forward(&self, x: &mut Tensor, sequences: &Sequences) -> Result<()> {
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
