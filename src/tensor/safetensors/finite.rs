//! Whether numbers are finite.

use half::{bf16, f16};
use rayon::prelude::*;

/// Numbers whose exponent says whether they are finite.
pub trait Float: Sync {
    /// Whether the number is neither infinite nor NaN.
    fn bounded(&self) -> bool;
}

impl Float for f32 {
    fn bounded(&self) -> bool {
        self.is_finite()
    }
}

impl Float for f16 {
    fn bounded(&self) -> bool {
        self.to_bits() & 0x7c00 != 0x7c00
    }
}

impl Float for bf16 {
    fn bounded(&self) -> bool {
        self.to_bits() & 0x7f80 != 0x7f80
    }
}

/// The place of the first value that is infinite or no number.
pub fn first_unbounded<T: Float>(values: &[T]) -> Option<usize> {
    // Pieces without a branch per value: weights have billions.
    const PIECE: usize = 1 << 16;
    let bad = |piece: &[T]| piece.iter().fold(false, |bad, value| bad | !value.bounded());
    let piece = values.par_chunks(PIECE).position_first(bad)?;
    Some(piece * PIECE + values[piece * PIECE..].iter().position(|value| !value.bounded())?)
}
