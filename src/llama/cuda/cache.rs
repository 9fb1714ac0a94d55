//! Keys and values on a CUDA device, in pages of 64 tokens.
//!
//! A sequence reads the pages of its prefix where they lie: nothing is copied, and the last page of a prefix need not be
//! full, since the sequence's own tokens begin a page of their own.

use std::sync::Arc;

use super::super::backend::KvCache;
use crate::bytes::Bytes;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};
use crate::ops::paged_attention::{Heads, PAGE, Page};

/// Keys and values of one sequence.
pub struct Cache {
    prefix: Option<Arc<Cache>>,
    /// Tokens of the prefix.
    before: usize,
    /// Own tokens held, and at most.
    len: usize,
    room: usize,
    heads: Heads,
    /// Bytes of a page of all layers.
    page: usize,
    pages: DeviceBuffer<u8>,
}

impl Cache {
    /// Room for as many tokens after those of the prefix; `reserved` bytes of the device's memory stay free.
    pub(super) fn new(
        gpu: &Gpu,
        heads: Heads,
        layers: usize,
        prefix: Option<Arc<Cache>>,
        room: usize,
        reserved: usize,
    ) -> Result<Cache> {
        let page = heads.page_bytes(layers);
        let (bytes, free) = (room.div_ceil(PAGE) * page, gpu.available()?.saturating_sub(reserved));
        if bytes > free {
            let (needed, free, fit) = (Bytes::of(bytes), Bytes::of(free), free / page * PAGE);
            let reason = format!(
                "{room} tokens need {needed}, {free} are free beside activations, in which {fit} tokens would fit; \
                 shorten the prompt, ask for fewer new tokens, or give fewer prompts at once"
            );
            return Err(Error::device(format!("{gpu:?}"), "allocating keys and values", reason));
        }
        let before = prefix.as_ref().map_or(0, |prefix| prefix.len());
        let pages = gpu.alloc("keys and values", bytes)?;
        Ok(Cache { prefix, before, len: 0, room, heads, page, pages })
    }

    fn own_page(&self, number: usize) -> Ptr {
        self.pages.ptr().offset::<u8>(number * self.page)
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
