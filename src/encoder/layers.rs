//! Layers of a transformer encoder, for inference on ragged rows.

use rayon::prelude::*;

use crate::device::cpu::{Buffer, Dense, Mat, ROW_CHUNK, layer_norm_forward, matmul, simd, vector};
use crate::error::Result;
use crate::tensor::safetensors::Reader;

/// Reads `name.weight` (outputs, inputs) and, if the layer has one, `name.bias`.
pub fn read_dense(reader: &Reader, name: &str, outputs: usize, inputs: usize, bias: bool) -> Result<Dense> {
    let weight = reader.tensor_of(&format!("{name}.weight"), &[outputs, inputs])?;
    let bias = match bias {
        true => reader.tensor_of(&format!("{name}.bias"), &[outputs])?.data().to_vec(),
        false => vec![0.0; outputs],
    };
    Ok(Dense::new(Mat::new(weight.data(), outputs, inputs), bias))
}

/// Layer normalization.
pub struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    eps: f32,
}

impl Norm {
    /// Reads `name.weight` and `name.bias`.
    pub fn read(reader: &Reader, name: &str, width: usize, eps: f32) -> Result<Norm> {
        let vector = |part: &str| -> Result<Vec<f32>> {
            Ok(reader.tensor_of(&format!("{name}.{part}"), &[width])?.data().to_vec())
        };
        Ok(Norm { gamma: vector("weight")?, beta: vector("bias")?, eps })
    }

    /// Normalized copy of the rows.
    pub fn forward(&self, x: &[f32]) -> Buffer {
        let width = self.gamma.len();
        let (mut scratch, mut out) = (Buffer::scratch(x.len()), Buffer::scratch(x.len()));
        let chunks = scratch.par_chunks_mut(ROW_CHUNK * width).zip(out.par_chunks_mut(ROW_CHUNK * width));
        chunks.zip(x.par_chunks(ROW_CHUNK * width)).for_each(|((scratch, out), x)| {
            scratch.copy_from_slice(x);
            let mut rstd = [0.0; ROW_CHUNK];
            layer_norm_forward(scratch, out, &mut rstd[..x.len() / width], &self.gamma, &self.beta, self.eps);
        });
        out
    }
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    QuickGelu,
    Gelu,
}

impl Activation {
    fn apply(self, x: &mut [f32]) {
        x.par_chunks_mut(1 << 14).for_each(|x| match self {
            Activation::QuickGelu => simd!(vector::quick_gelu(x)),
            Activation::Gelu => simd!(vector::gelu(x)),
        });
    }
}

/// Sizes of a transformer.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub width: usize,
    pub inner: usize,
    pub heads: usize,
    pub eps: f32,
    pub activation: Activation,
}

/// A block that normalizes before attention and before its MLP, with residuals around both.
pub struct Block {
    sizes: Sizes,
    norm1: Norm,
    query: Dense,
    key: Dense,
    value: Dense,
    out: Dense,
    norm2: Norm,
    up: Dense,
    down: Dense,
}

impl Block {
    /// Reads a block of CLIP's naming.
    pub fn read(reader: &Reader, name: &str, sizes: Sizes) -> Result<Block> {
        let (w, inner) = (sizes.width, sizes.inner);
        let dense = |part: &str, outputs, inputs| read_dense(reader, &format!("{name}.{part}"), outputs, inputs, true);
        Ok(Block {
            sizes,
            norm1: Norm::read(reader, &format!("{name}.layer_norm1"), w, sizes.eps)?,
            query: dense("self_attn.q_proj", w, w)?,
            key: dense("self_attn.k_proj", w, w)?,
            value: dense("self_attn.v_proj", w, w)?,
            out: dense("self_attn.out_proj", w, w)?,
            norm2: Norm::read(reader, &format!("{name}.layer_norm2"), w, sizes.eps)?,
            up: dense("mlp.fc1", inner, w)?,
            down: dense("mlp.fc2", w, inner)?,
        })
    }

    /// Updates the rows of sequences of these lengths in place.
    pub fn forward(&self, x: &mut [f32], lengths: &[usize], causal: bool) -> Result<()> {
        let normed = self.norm1.forward(x);
        let [q, k, v] = [&self.query, &self.key, &self.value].map(|layer| layer.forward(&normed));
        let context = self.attend(&q?, &k?, &v?, lengths, causal)?;
        add(x, &self.out.forward(&context)?);
        let mut inner = self.up.forward(&self.norm2.forward(x))?;
        self.sizes.activation.apply(&mut inner);
        add(x, &self.down.forward(&inner)?);
        Ok(())
    }

    fn attend(&self, q: &[f32], k: &[f32], v: &[f32], lengths: &[usize], causal: bool) -> Result<Buffer> {
        let (width, head) = (self.sizes.width, self.sizes.width / self.sizes.heads);
        let mut context = Buffer::scratch(q.len());
        let mut rest = &mut context[..];
        let mut work = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for &length in lengths {
            let (this, tail) = rest.split_at_mut(length * width);
            work.push((start, length, this));
            (start, rest) = (start + length, tail);
        }
        work.into_par_iter().try_for_each_init(Vec::new, |logits, (start, length, context)| {
            logits.resize(length * length, 0.0f32);
            let rows = |x| Mat::new(x, q.len() / width, width).rows(start, length);
            for h in (0..width).step_by(head) {
                let [q, k, v] = [q, k, v].map(|x| rows(x).columns(h, head));
                matmul(logits, length, 0.0, 1.0 / (head as f32).sqrt(), q, k.t())?;
                for (i, row) in logits.chunks_exact_mut(length).enumerate() {
                    let seen = if causal { i + 1 } else { length };
                    row[seen..].fill(0.0);
                    simd!(vector::softmax(&mut row[..seen]));
                }
                matmul(&mut context[h..], width, 0.0, 1.0, Mat::new(logits, length, length), v)?;
            }
            Ok(())
        })?;
        Ok(context)
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.par_chunks_mut(1 << 14).zip(y.par_chunks(1 << 14)).for_each(|(x, y)| simd!(vector::add(x, y)));
}
