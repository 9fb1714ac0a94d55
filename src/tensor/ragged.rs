//! Sequences of different lengths laid end to end.

use std::ops::Range;

use super::Indices;
use crate::error::{Error, Result};

/// Where each of n sequences lies among the rows of a matrix. Padding exists nowhere.
#[derive(Clone, Debug)]
pub struct Ragged {
    /// Offsets (n + 1): sequence i owns rows `offsets[i]..offsets[i + 1]`.
    offsets: Indices,
    textbook: Textbook,
}

/// What an implementation that pads and repeats would compute on instead; only FLOP counts look at it.
#[derive(Clone, Copy, Debug)]
pub struct Textbook {
    /// Sequences, each as often as it is used.
    pub sequences: usize,
    /// Rows every sequence is padded to.
    pub length: usize,
}

impl Textbook {
    /// Padded rows of all sequences together.
    pub fn rows(&self) -> usize {
        self.sequences * self.length
    }
}

impl Ragged {
    /// Sequences of these lengths, none of them empty.
    pub fn new(lengths: impl IntoIterator<Item = usize>, textbook: Textbook) -> Result<Ragged> {
        let mut offsets = vec![0u32];
        let mut total = 0usize;
        for length in lengths {
            if length == 0 {
                return Err(Error::shape("ragged", format!("sequence {} is empty", offsets.len() - 1)));
            }
            total += length;
            offsets.push(u32::try_from(total).map_err(|_| Error::shape("ragged", "more than 2^32 rows in one batch"))?);
        }
        Ok(Ragged { offsets: offsets.into(), textbook })
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of all sequences together.
    pub fn rows(&self) -> usize {
        self.offsets[self.len()] as usize
    }

    /// Rows of sequence `i`.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.offsets[i] as usize..self.offsets[i + 1] as usize
    }

    /// Rows of each sequence in turn.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        (0..self.len()).map(|i| self.range(i))
    }

    /// Offsets (n + 1).
    pub fn offsets(&self) -> &Indices {
        &self.offsets
    }

    /// What a textbook implementation would compute on instead.
    pub fn textbook(&self) -> Textbook {
        self.textbook
    }
}
