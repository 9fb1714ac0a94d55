//! Keys and values of a sequence: on the host an array per layer, on a device pages of 64 tokens.
//!
//! A sequence reads those of its prefix where they lie: nothing is copied, and the last page of a prefix need not be
//! full, since the sequence's own tokens begin a page of their own.

use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{Heads, PAGE, Page};
use crate::bytes::Bytes;
use crate::device::Gpu;
use crate::device::cpu::{available_memory, simd, vector};
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};
use crate::tensor::Element;

/// Keys and values of one sequence, on top of a prefix that it may share with others.
pub struct Cache {
    prefix: Option<Arc<Cache>>,
    /// Tokens of the prefix.
    before: usize,
    /// Own tokens held, and at most.
    len: usize,
    room: usize,
    heads: Heads,
    memory: Memory,
}

/// Of each layer on the host keys (kv heads, room, size of a head), then values of the same shape.
enum Memory {
    F32(Vec<Vec<f32>>),
    F16(Vec<Vec<f16>>),
    Device {
        pages: DeviceBuffer<u8>,
        /// Bytes of a page of all layers.
        page: usize,
    },
}

/// Keys or values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Keys = 0,
    Values = 1,
}

impl Cache {
    /// Room for as many tokens after those of the prefix. Of a device's memory `reserved` bytes stay free.
    ///
    /// Fails if there is no memory for it; the error says how many tokens would fit.
    pub fn new(
        heads: Heads,
        layers: usize,
        prefix: Option<Arc<Cache>>,
        room: usize,
        device: Option<(&Gpu, usize)>,
    ) -> Result<Cache> {
        let per_token = layers * 2 * heads.kv * heads.size * heads.element.size();
        let (needed, free, fit) = match device {
            // The system promises more memory than it has, so ask what is there.
            None => {
                let free = available_memory().unwrap_or(usize::MAX);
                (room.saturating_mul(per_token), free, free / per_token.max(1))
            }
            Some((gpu, reserved)) => {
                let (page, free) = (heads.page_bytes(layers), gpu.available()?.saturating_sub(reserved));
                (room.div_ceil(PAGE) * page, free, free / page.max(1) * PAGE)
            }
        };
        let refused = || {
            let (needed, free) = (Bytes::of(needed), Bytes::of(free));
            let reason = format!(
                "{room} tokens need {needed}, {free} are free, in which {fit} tokens would fit; shorten the prompt, \
                 ask for fewer new tokens, or give fewer prompts at once"
            );
            let device = device.map_or("cpu".into(), |(gpu, _)| format!("{gpu:?}"));
            Error::device(device, "allocating keys and values", reason)
        };
        if needed > free {
            return Err(refused());
        }
        let values = 2 * room * heads.kv * heads.size;
        let memory = match (device, heads.element) {
            (Some((gpu, _)), _) => {
                Memory::Device { pages: gpu.alloc("keys and values", needed)?, page: heads.page_bytes(layers) }
            }
            (None, Element::F32) => Memory::F32(reserved(layers, values).ok_or_else(refused)?),
            (None, _) => Memory::F16(reserved(layers, values).ok_or_else(refused)?),
        };
        let before = prefix.as_ref().map_or(0, |prefix| prefix.len());
        Ok(Cache { prefix, before, len: 0, room, heads, memory })
    }

    /// Tokens whose keys and values are held, the prefix's included.
    pub fn len(&self) -> usize {
        self.before + self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most tokens that it can hold, the prefix's included.
    pub fn capacity(&self) -> usize {
        self.before + self.room
    }

    /// Counts tokens whose keys and values every layer has stored.
    pub fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Whether they lie on a device.
    pub(super) fn on_device(&self) -> bool {
        matches!(self.memory, Memory::Device { .. })
    }

    /// Stores the keys and values of new tokens on the host: rows (n, width of the heads) from the end of what is held.
    pub(super) fn store(&mut self, layer: usize, qkv: &[f32]) {
        let Heads { queries, size, .. } = self.heads;
        for (row, qkv) in qkv.chunks_exact(self.heads.width()).enumerate() {
            for (i, head) in qkv[queries * size..].chunks_exact(size).enumerate() {
                let at = (i * self.room + self.len + row) * size;
                match &mut self.memory {
                    Memory::F32(layers) => layers[layer][at..at + size].copy_from_slice(head),
                    Memory::F16(layers) => layers[layer][at..at + size].convert_from_f32_slice(head),
                    Memory::Device { .. } => {}
                }
            }
        }
    }

    /// Up to `count` keys or values of a head from a position on, as f32 (tokens, size of a head), on the host: fewer
    /// where a part of the memory ends. `scratch` is where they are widened, if need be.
    pub(super) fn read<'a>(
        &'a self,
        (layer, part, head): (usize, Part, usize),
        position: usize,
        count: usize,
        scratch: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        if let (Some(prefix), true) = (&self.prefix, position < self.before) {
            return prefix.read((layer, part, head), position, count.min(self.before - position), scratch);
        }
        let own = position - self.before;
        let start = ((part as usize * self.heads.kv + head) * self.room + own) * self.heads.size;
        let at = start..start + count.min(self.room - own) * self.heads.size;
        match &self.memory {
            Memory::F32(layers) => &layers[layer][at],
            Memory::F16(layers) => {
                scratch.resize(at.len(), 0.0);
                simd!(vector::widen(scratch, &layers[layer][at]));
                scratch
            }
            Memory::Device { .. } => &[],
        }
    }

    fn own_page(&self, number: usize) -> Ptr {
        match &self.memory {
            Memory::Device { pages, page } => pages.ptr().offset::<u8>(number * page),
            _ => Ptr::NULL,
        }
    }

    /// Appends the pages of positions below `end` to a table.
    fn list(&self, end: usize, table: &mut Vec<Page>) {
        if let Some(prefix) = &self.prefix {
            prefix.list(self.before, table);
        }
        let own = end.saturating_sub(self.before);
        table.extend((0..own.div_ceil(PAGE)).map(|number| Page {
            at: self.own_page(number),
            first: (self.before + number * PAGE) as i32,
            count: PAGE.min(own - number * PAGE) as i32,
        }));
    }

    /// All its pages, in the order of positions.
    pub(super) fn pages(&self) -> Vec<Page> {
        let mut table = Vec::new();
        self.list(self.capacity(), &mut table);
        table
    }

    /// Where the keys of the token at a position of its own go, in the first layer.
    pub(super) fn slot(&self, position: usize) -> Ptr {
        let own = position - self.before;
        self.heads.slot(self.own_page(own / PAGE), own % PAGE)
    }
}

/// Zeros of each layer, or `None` instead of an abort where there is no memory.
fn reserved<T: bytemuck::Zeroable + Clone>(layers: usize, len: usize) -> Option<Vec<Vec<T>>> {
    let layer = |_| {
        let mut values = Vec::new();
        values.try_reserve_exact(len).ok()?;
        values.resize(len, T::zeroed());
        Some(values)
    };
    (0..layers).map(layer).collect()
}
