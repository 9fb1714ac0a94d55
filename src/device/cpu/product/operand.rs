//! The left operand of a product, which is read a block of rows at a time.

use std::ops::Range;

use half::bf16;

use super::Value;

/// Rows of a left operand, row-major.
#[derive(Clone, Copy)]
pub struct Operand<'a, T> {
    values: &'a [T],
    width: usize,
}

impl<'a, T: Value> Operand<'a, T> {
    /// Rows of `width` values.
    pub fn new(values: &'a [T], width: usize) -> Operand<'a, T> {
        Operand { values, width }
    }

    /// Number of rows and of values in each; `None` if the last row is not whole.
    pub fn size(&self) -> Option<(usize, usize)> {
        let whole = self.width > 0 && self.values.len().is_multiple_of(self.width);
        whole.then(|| (self.values.len() / self.width, self.width))
    }

    /// Some rows in bf16, an even number of values each, and the distance from one to the next: where they lie, or a
    /// copy in `scratch`.
    pub(super) fn block<'b>(&self, rows: Range<usize>, scratch: &'b mut Vec<bf16>) -> (&'b [bf16], usize)
    where
        'a: 'b,
    {
        let values = &self.values[rows.start * self.width..rows.end * self.width];
        if let (Ok(values), true) =
            (bytemuck::try_cast_slice(values), size_of::<T>() == 2 && self.width.is_multiple_of(2))
        {
            return (values, self.width);
        }
        // One line more than needed: rows a large power of two apart would fall into the same few sets of the cache.
        let stride = self.width.next_multiple_of(32) + 32;
        scratch.resize(rows.len() * stride, bf16::ZERO);
        for (to, from) in scratch.chunks_exact_mut(stride).zip(values.chunks_exact(self.width)) {
            simd!(T::round(&mut to[..self.width], from));
            to[self.width..].fill(bf16::ZERO);
        }
        (scratch, stride)
    }
}
