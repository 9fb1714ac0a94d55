//! Float arrays whose memory is used again.
//!
//! A training step allocates and drops the same large arrays every time. Given back to the operating system,
//! each would cost a page fault per 4 KiB on its next use, which takes longer than the arithmetic on it.

use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex};

use half::bf16;

use super::available_memory;

/// Arrays smaller than this go through the ordinary allocator, which keeps them too ([`super::keep_freed_memory`]).
const SMALL: usize = 16 << 10;
/// At least so many floats wait for reuse (1 GiB).
const LEAST_LIMIT: usize = 256 << 20;

/// The most floats that wait for reuse; what comes on top is freed. A quarter of the memory that was free at first: the
/// activations of an encoder of real size take gigabytes, step after step.
static LIMIT: LazyLock<usize> =
    LazyLock::new(|| (available_memory().unwrap_or(0) / 4 / size_of::<f32>()).max(LEAST_LIMIT));

static POOL: Mutex<Pool> = Mutex::new(Pool { waiting: Vec::new(), floats: 0 });

struct Pool {
    waiting: Vec<Vec<f32>>,
    floats: usize,
}

impl Pool {
    /// The smallest waiting array that holds `len` without wasting more than half of itself.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let fits = |v: &Vec<f32>| v.capacity() >= len && v.capacity() / 2 <= len;
        let (index, _) = self.waiting.iter().enumerate().filter(|(_, v)| fits(v)).min_by_key(|(_, v)| v.capacity())?;
        let found = self.waiting.swap_remove(index);
        self.floats -= found.capacity();
        Some(found)
    }

    fn give(&mut self, v: Vec<f32>) {
        if self.floats + v.capacity() <= *LIMIT {
            self.floats += v.capacity();
            self.waiting.push(v);
        }
    }
}

fn pool() -> std::sync::MutexGuard<'static, Pool> {
    // A panic elsewhere cannot leave the pool half-changed: it only moves whole arrays.
    POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// An owned array of f32 that returns to a pool when dropped.
#[derive(Debug, Default)]
pub struct Buffer(Vec<f32>);

impl Buffer {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Buffer {
        match Buffer::recycled(len) {
            Some(mut v) => {
                v.clear();
                v.resize(len, 0.0);
                Buffer(v)
            }
            None => Buffer(vec![0.0; len]),
        }
    }

    /// `len` floats of any value: for results that are written in full before they are read.
    pub fn scratch(len: usize) -> Buffer {
        match Buffer::recycled(len) {
            Some(mut v) => {
                v.resize(len, 0.0);
                Buffer(v)
            }
            None => Buffer(vec![0.0; len]),
        }
    }

    fn recycled(len: usize) -> Option<Vec<f32>> {
        if len < SMALL { None } else { pool().take(len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.capacity() >= SMALL {
            pool().give(std::mem::take(&mut self.0));
        }
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(v: Vec<f32>) -> Buffer {
        Buffer(v)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        let mut copy = Buffer::scratch(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// An owned array of bf16 from the same pool.
#[derive(Clone, Debug)]
pub struct HalfBuffer {
    /// Two values in the bits of each.
    words: Buffer,
    len: usize,
}

impl HalfBuffer {
    /// `len` values of any kind: for results that are written in full before they are read.
    pub fn scratch(len: usize) -> HalfBuffer {
        HalfBuffer { words: Buffer::scratch(len.div_ceil(2)), len }
    }
}

impl Deref for HalfBuffer {
    type Target = [bf16];

    fn deref(&self) -> &[bf16] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl DerefMut for HalfBuffer {
    fn deref_mut(&mut self) -> &mut [bf16] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zero_after_reuse() {
        let len = SMALL + 7;
        let mut first = Buffer::zeros(len);
        first.fill(3.0);
        drop(first);
        assert!(Buffer::zeros(len).iter().all(|&x| x == 0.0));
        assert_eq!(Buffer::scratch(len).len(), len);
    }
}
