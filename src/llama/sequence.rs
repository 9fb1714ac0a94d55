//! Sequences and prefixes, and which decoder's they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::ops::paged_attention::Cache;

/// Tells one opened decoder's sequences from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u64);

impl Owner {
    /// One that no other decoder has.
    pub(super) fn new() -> Owner {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Owner(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn expect(self, owner: Owner) -> Result<()> {
        let reason = "a sequence or prefix of another model, whose keys and values mean nothing to this one";
        if self == owner { Ok(()) } else { Err(Error::shape("llama", reason)) }
    }
}

/// Tokens whose keys and values are computed once and read by every sequence that starts with them. Cloning shares it.
#[derive(Clone)]
pub struct Prefix {
    owner: Owner,
    cache: Arc<Cache>,
}

/// A sequence that grows by forward passes.
pub struct Sequence {
    owner: Owner,
    cache: Cache,
}

impl Prefix {
    /// Its tokens.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    pub(super) fn cache(&self, owner: Owner) -> Result<Arc<Cache>> {
        owner.expect(self.owner).map(|()| self.cache.clone())
    }
}

impl Sequence {
    pub(super) fn new(owner: Owner, cache: Cache) -> Sequence {
        Sequence { owner, cache }
    }

    pub(super) fn cache_mut(&mut self, owner: Owner) -> Result<&mut Cache> {
        owner.expect(self.owner).map(|()| &mut self.cache)
    }

    pub(super) fn into_prefix(self, owner: Owner) -> Result<Prefix> {
        owner.expect(self.owner).map(|()| Prefix { owner, cache: Arc::new(self.cache) })
    }
}
