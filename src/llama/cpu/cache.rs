//! Keys and values on the CPU: one array per layer, of the sequence's own tokens; those before lie in the prefix.

use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::super::LlamaConfig;
use super::super::backend::KvCache;
use crate::bytes::Bytes;
use crate::device::cpu::{available_memory, simd, vector};
use crate::error::{Error, Result};
use crate::ops::paged_attention::{KeysValues, Part};

/// Keys and values of one sequence.
pub struct Cache {
    prefix: Option<Arc<Cache>>,
    /// Tokens of the prefix.
    before: usize,
    /// Own tokens held, and at most.
    len: usize,
    room: usize,
    kv_heads: usize,
    head_dim: usize,
    layers: Vec<Layer>,
}

/// Keys (kv_heads, room, head_dim), then values of the same shape.
enum Layer {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Cache {
    pub(super) fn new(config: &LlamaConfig, prefix: Option<Arc<Cache>>, room: usize, exact: bool) -> Result<Cache> {
        let per_token = config.layers * 2 * config.kv_width() * if exact { 4 } else { 2 };
        let needed = room.saturating_mul(per_token);
        let refuse = |free: usize| {
            let (needed, free, fit) = (Bytes::of(needed), Bytes::of(free), free / per_token);
            let reason = format!(
                "{room} tokens need {needed}, {free} are free, in which {fit} tokens would fit; shorten the prompt, \
                 ask for fewer new tokens, or give fewer prompts at once"
            );
            Error::device("cpu", "allocating keys and values", reason)
        };
        // The system promises more memory than it has, so ask what is there.
        let free = available_memory().unwrap_or(usize::MAX);
        if needed > free {
            return Err(refuse(free));
        }
        let values = 2 * room * config.kv_width();
        let layer = |_| {
            Ok(match exact {
                true => Layer::F32(reserved(values).map_err(|()| refuse(free))?),
                false => Layer::F16(reserved(values).map_err(|()| refuse(free))?),
            })
        };
        Ok(Cache {
            before: prefix.as_ref().map_or(0, |p| p.len()),
            prefix,
            len: 0,
            room,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
        })
    }

    /// Stores the keys and values of new tokens: rows (n, query width + 2 kv widths) from the end of what is held.
    pub(super) fn store(&mut self, layer: usize, qkv: &[f32], query_width: usize) {
        let (heads, dim, room) = (self.kv_heads, self.head_dim, self.room);
        let width = query_width + 2 * heads * dim;
        for (row, qkv) in qkv.chunks_exact(width).enumerate() {
            for (i, head) in qkv[query_width..].chunks_exact(dim).enumerate() {
                let at = (i * room + self.len + row) * dim;
                match &mut self.layers[layer] {
                    Layer::F32(v) => v[at..at + dim].copy_from_slice(head),
                    Layer::F16(v) => v[at..at + dim].convert_from_f32_slice(head),
                }
            }
        }
    }
}

impl KeysValues for Cache {
    fn read<'a>(
        &'a self,
        layer: usize,
        part: Part,
        head: usize,
        position: usize,
        count: usize,
        scratch: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        if let (Some(prefix), true) = (&self.prefix, position < self.before) {
            return prefix.read(layer, part, head, position, count.min(self.before - position), scratch);
        }
        let own = position - self.before;
        let start = ((part as usize * self.kv_heads + head) * self.room + own) * self.head_dim;
        let at = start..start + count.min(self.room - own) * self.head_dim;
        match &self.layers[layer] {
            Layer::F32(v) => &v[at],
            Layer::F16(v) => {
                scratch.resize(at.len(), 0.0);
                simd!(vector::widen(scratch, &v[at]));
                scratch
            }
        }
    }
}

impl KvCache for Cache {
    fn len(&self) -> usize {
        self.before + self.len
    }

    fn capacity(&self) -> usize {
        self.before + self.room
    }

    fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// Zeros, or an error instead of an abort where there is no memory.
fn reserved<T: bytemuck::Zeroable + Clone>(len: usize) -> Result<Vec<T>, ()> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| ())?;
    values.resize(len, T::zeroed());
    Ok(values)
}
