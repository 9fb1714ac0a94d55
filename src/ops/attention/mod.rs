//! Self-attention of ragged sequences: per head, `softmax(q kᵀ / sqrt(c)) v` (kernels/attention.cu).

mod cpu;
mod cuda;
pub mod differentiable;

pub use cpu::{Heads, self_attention};

use crate::autograd::Cost;
use crate::error::{Error, Result};
use crate::tensor::{Data, Element, Rows, Sequences};

/// What attention costs on sequences of these lengths, as if no row were hidden from another.
pub fn cost(lengths: &[usize], heads: Heads, element: Element) -> Cost {
    let width = heads.count * heads.width;
    let of = |&length: &usize| Cost::inference(4 * length * length * width, 4 * length * width * element.size());
    lengths.iter().map(of).sum()
}

/// Attention of ragged sequences to themselves; it has no weights.
pub struct Attention {
    heads: Heads,
    /// Of the output, which is also the input's.
    element: Element,
}

impl Attention {
    /// With these heads.
    pub fn new(heads: Heads, element: Element) -> Attention {
        Attention { heads, element }
    }

    /// Queries, keys and values side by side (n, 3 · width) -> contexts (n, width)
    pub fn forward(&self, qkv: &Rows, sequences: &Sequences) -> Result<Rows> {
        if let Data::Device(qkv) = qkv.data() {
            return Ok(Rows::on_device(cuda::attend(qkv, sequences, self.heads)?));
        }
        let mut out = Rows::scratch(qkv.count(), self.heads.count * self.heads.width, self.element)?;
        match (qkv.data(), out.data_mut()) {
            (Data::F32(qkv), Data::F32(out)) => self_attention(qkv, sequences.lengths(), self.heads, out)?,
            (Data::Bf16(qkv), Data::Bf16(out)) => self_attention(qkv, sequences.lengths(), self.heads, out)?,
            _ => return Err(Error::shape("self-attention", format!("rows are not {:?}", self.element))),
        }
        Ok(out)
    }
}
