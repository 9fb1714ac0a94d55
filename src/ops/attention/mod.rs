//! Self-attention of ragged sequences: per head, `softmax(q kᵀ / sqrt(c)) v` (kernels/attention.cu).

mod cpu;
mod cuda;
pub mod differentiable;

pub use cpu::{Heads, self_attention};

use crate::autograd::Cost;
use crate::error::{Error, Result};
use crate::tensor::{Element, Host, HostMut, Sequences, Tensor};

/// What attention costs on sequences of these lengths, as if no row were hidden from another.
pub fn cost(lengths: &[usize], heads: Heads, element: Element) -> Cost {
    let width = heads.count * heads.width;
    let of = |&length: &usize| Cost::inference(4 * length * length * width, 4 * length * width * element.size());
    lengths.iter().map(of).sum()
}

/// Attention of ragged sequences to themselves; it has no weights.
pub struct SelfAttention {
    heads: Heads,
    /// Of the output, which is also the input's.
    element: Element,
}

impl SelfAttention {
    /// With these heads.
    pub fn new(heads: Heads, element: Element) -> SelfAttention {
        SelfAttention { heads, element }
    }

    /// Queries, keys and values side by side (n, 3 · width) -> contexts (n, width)
    pub fn forward(&self, qkv: &Tensor, sequences: &Sequences) -> Result<Tensor> {
        if qkv.gpu().is_some() {
            return cuda::attend(qkv, sequences, self.heads);
        }
        let mut out = Tensor::scratch([qkv.count(), self.heads.count * self.heads.width], self.element)?;
        match (qkv.host("self-attention")?, out.host_mut("self-attention")?) {
            (Host::F32(qkv), HostMut::F32(out)) => self_attention(qkv, sequences.lengths(), self.heads, out)?,
            (Host::Bf16(qkv), HostMut::Bf16(out)) => self_attention(qkv, sequences.lengths(), self.heads, out)?,
            _ => return Err(Error::shape("self-attention", format!("rows are not {:?}", self.element))),
        }
        Ok(out)
    }
}
