//! Sequences and prefixes, whichever device holds their keys and values.

use std::any::Any;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Tokens whose keys and values are computed once and read by every sequence that starts with them. Cloning shares it.
#[derive(Clone)]
pub struct Prefix {
    len: usize,
    cache: Arc<dyn Any + Send + Sync>,
}

/// A sequence that grows by forward passes.
pub struct Sequence(Box<dyn Any + Send + Sync>);

fn foreign() -> Error {
    Error::shape("llama", "a sequence of another decoder, whose keys and values lie on another device")
}

impl Prefix {
    pub(super) fn new(len: usize, cache: Arc<dyn Any + Send + Sync>) -> Prefix {
        Prefix { len, cache }
    }

    /// Its tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn cache<C: Send + Sync + 'static>(&self) -> Result<Arc<C>> {
        self.cache.clone().downcast().map_err(|_| foreign())
    }
}

impl Sequence {
    pub(super) fn new(cache: Box<dyn Any + Send + Sync>) -> Sequence {
        Sequence(cache)
    }

    pub(super) fn cache_mut<C: 'static>(&mut self) -> Result<&mut C> {
        self.0.downcast_mut().ok_or_else(foreign)
    }

    pub(super) fn into_cache<C: 'static>(self) -> Result<C> {
        Ok(*self.0.downcast().map_err(|_| foreign())?)
    }
}
