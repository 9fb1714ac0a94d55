//! Sequences of different lengths laid end to end.

use std::iter::once;
use std::ops::Range;

use super::Indices;
use crate::device::Gpu;
use crate::device::cuda::Ptr;
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

/// Sequences that lie one after the other in rows, without padding; they may be empty.
#[derive(Clone, Debug)]
pub struct Sequences {
    lengths: Vec<usize>,
    offsets: Indices,
}

impl Sequences {
    /// Sequences of these lengths.
    pub fn new(lengths: Vec<usize>) -> Sequences {
        let ends = lengths.iter().scan(0u32, |end, length| {
            *end = end.wrapping_add(*length as u32);
            Some(*end)
        });
        let offsets = once(0).chain(ends).collect();
        Sequences { lengths, offsets }
    }

    /// `count` sequences of one length.
    pub fn equal(count: usize, length: usize) -> Sequences {
        Sequences::new(vec![length; count])
    }

    /// Where a device finds the offsets (n + 1). Fails unless the sequences have so many rows, which a kernel can
    /// count.
    pub(crate) fn on(&self, gpu: &Gpu, rows: usize) -> Result<Ptr> {
        let found: usize = self.lengths.iter().sum();
        if found != rows || i32::try_from(rows).is_err() {
            let reason = format!("{rows} rows for sequences of {found} in one batch, of which a device takes 2^31");
            return Err(Error::shape("sequences", reason));
        }
        self.offsets.on(gpu)
    }

    /// Rows of each.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Rows of the longest.
    pub fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Where each one's rows lie.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.lengths.iter().scan(0, |start, length| {
            let range = *start..*start + length;
            *start = range.end;
            Some(range)
        })
    }
}
