//! Sequences and prefixes, whichever device holds their keys and values.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Tells one opened decoder's sequences from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u64);

impl Owner {
    /// One that no other decoder has.
    pub(super) fn new() -> Owner {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Owner(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Tokens whose keys and values are computed once and read by every sequence that starts with them. Cloning shares it.
#[derive(Clone)]
pub struct Prefix {
    owner: Owner,
    len: usize,
    cache: Arc<dyn Any + Send + Sync>,
}

/// A sequence that grows by forward passes.
pub struct Sequence {
    owner: Owner,
    cache: Box<dyn Any + Send + Sync>,
}

fn foreign() -> Error {
    Error::shape("llama", "a sequence or prefix of another model, whose keys and values mean nothing to this one")
}

impl Prefix {
    pub(super) fn new<C: Send + Sync + 'static>(owner: Owner, len: usize, cache: Arc<C>) -> Prefix {
        Prefix { owner, len, cache }
    }

    /// Its tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn cache<C: Send + Sync + 'static>(&self, owner: Owner) -> Result<Arc<C>> {
        if self.owner != owner {
            return Err(foreign());
        }
        self.cache.clone().downcast().map_err(|_| foreign())
    }
}

impl Sequence {
    pub(super) fn new<C: Send + Sync + 'static>(owner: Owner, cache: C) -> Sequence {
        Sequence { owner, cache: Box::new(cache) }
    }

    pub(super) fn cache_mut<C: 'static>(&mut self, owner: Owner) -> Result<&mut C> {
        if self.owner != owner {
            return Err(foreign());
        }
        self.cache.downcast_mut().ok_or_else(foreign)
    }

    pub(super) fn into_cache<C: 'static>(self, owner: Owner) -> Result<C> {
        if self.owner != owner {
            return Err(foreign());
        }
        Ok(*self.cache.downcast().map_err(|_| foreign())?)
    }
}
