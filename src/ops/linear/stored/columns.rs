//! A row-major output whose columns several threads write.

use std::marker::PhantomData;
use std::ops::Range;

/// Where one task writes: some columns of all rows of a matrix (n, stride).
pub struct Columns<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a value is the only way to its elements, as a mutable slice is; `split` hands out disjoint ones.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Cuts a matrix of rows of `stride` floats at these column ranges, which must be ascending and disjoint.
    pub fn split(y: &'a mut [f32], stride: usize, ranges: &[Range<usize>]) -> Vec<Columns<'a>> {
        let rows = y.len().checked_div(stride).unwrap_or(0);
        let start = y.as_mut_ptr();
        let mut end = 0;
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            assert!(range.start >= end && range.start <= range.end && range.end <= stride, "ranges overlap");
            end = range.end;
            // SAFETY: the range lies within the stride, so the pointer stays inside the slice or, for an empty matrix, at it.
            let start = if rows == 0 { start } else { unsafe { start.add(range.start) } };
            parts.push(Columns { start, stride, rows, columns: range.len(), _borrow: PhantomData });
        }
        parts
    }

    /// Number of rows and of columns.
    pub fn size(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// The columns of one row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: rows are `stride` apart and hold at least `columns` floats from `start`; no other value has these columns,
        // and `self` is borrowed as long as they are.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_columns() {
        let mut y: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut parts = Columns::split(&mut y, 4, &[0..1, 2..4]);
        assert_eq!(parts[1].size(), (3, 2));
        assert_eq!(parts[1].row(2), [10.0, 11.0]);
        parts[0].row(1)[0] = -1.0;
        assert_eq!(y[4], -1.0);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_ranges_are_refused() {
        Columns::split(&mut [0.0; 4], 4, &[0..2, 1..3]);
    }
}
