//! Products of f32 matrices with any strides: on the CPU single-threaded, callers split the work; on a device several in
//! one launch (kernels/matmul.cu).

mod cuda;

pub use cuda::{Operand, Product, Products, summed, written};

use crate::error::{Error, Result};

/// A read-only matrix view: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major `rows` x `cols`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Mat<'a> {
        Mat::strided(data, rows, cols, cols)
    }

    /// Row-major with `row_stride` floats from one row to the next.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Mat<'a> {
        Mat { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transposed view.
    pub fn t(self) -> Mat<'a> {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Columns `start..start + cols`.
    pub fn columns(self, start: usize, cols: usize) -> Mat<'a> {
        Mat { data: self.data.get(start * self.col_stride..).unwrap_or(&[]), cols, ..self }
    }

    /// Rows `start..start + rows`.
    pub fn rows(self, start: usize, rows: usize) -> Mat<'a> {
        Mat { data: self.data.get(start * self.row_stride..).unwrap_or(&[]), rows, ..self }
    }

    /// Number of rows and of columns.
    pub fn size(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Element (i, j).
    #[inline(always)]
    pub fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.col_stride]
    }

    fn in_bounds(&self) -> bool {
        reaches(self.data.len(), self.rows, self.cols, self.row_stride, self.col_stride)
    }
}

fn reaches(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

/// `c = keep * c + scale * a b`, with c row-major of `c_stride` floats a row. `keep` 0 does not read c.
///
/// Fails if the inner sizes differ or a view reaches past its data.
pub fn matmul(c: &mut [f32], c_stride: usize, keep: f32, scale: f32, a: Mat, b: Mat) -> Result<()> {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if b.rows != k {
        return Err(Error::shape("matmul", format!("{m} x {k} times {} x {n}", b.rows)));
    }
    if !(a.in_bounds() && b.in_bounds() && reaches(c.len(), m, n, c_stride, 1)) || (n > c_stride && m > 1) {
        return Err(Error::shape("matmul", "an operand is smaller than its shape says"));
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    // SAFETY: the checks above keep every element of the three views inside its slice; c is borrowed mutably, so
    // it overlaps neither a nor b, and its rows do not overlap each other.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            c_stride as isize,
            keep != 0.0,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    Ok(())
}

/// Products of fewer elements, with a right operand whose columns are contiguous, are sums of another order.
const SMALL: usize = 256;

/// Narrower products are split along longer sums elsewhere if they have few rows.
const NARROW: (usize, usize) = (64, 512);

/// [`matmul`], of which a row of c has the same bits however many rows there are: what a product with few rows would sum in
/// another order is computed with rows of zeros below, and long sums of narrow products are cut at the same place.
///
/// What runs in parts, or in batches that differ from run to run, is made of these.
pub fn matmul_by_rows(c: &mut [f32], c_stride: usize, keep: f32, scale: f32, a: Mat, b: Mat) -> Result<()> {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let (narrow, long) = NARROW;
    if n <= narrow && k > long && b.rows == k {
        return (0..k).step_by(long).try_for_each(|from| {
            let keep = if from == 0 { keep } else { 1.0 };
            let to = (from + long).min(k);
            matmul_by_rows(c, c_stride, keep, scale, a.columns(from, to - from), b.rows(from, to - from))
        });
    }
    let least = if b.row_stride == 1 { (SMALL / n.max(1) + 1).max(2) } else { 2 };
    if m == 0 || m >= least || !(a.in_bounds() && reaches(c.len(), m, n, c_stride, 1)) {
        return matmul(c, c_stride, keep, scale, a, b);
    }
    let (mut x, mut y) = (vec![0.0; least * k], vec![0.0; least * n]);
    for i in 0..m {
        (0..k).for_each(|j| x[i * k + j] = a.at(i, j));
        y[i * n..][..n].copy_from_slice(&c[i * c_stride..][..n]);
    }
    matmul(&mut y, n, keep, scale, Mat::new(&x, least, k), b)?;
    (0..m).for_each(|i| c[i * c_stride..][..n].copy_from_slice(&y[i * n..][..n]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_same_bits_however_many_there_are() {
        for (n, k) in [(1, 7), (5, 2), (16, 768), (32, 513), (96, 512), (100, 768), (300, 40)] {
            let a: Vec<f32> = (0..130 * k).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.11).cos()).collect();
            // The right operand's rows lie side by side, then its columns.
            for b in [Mat::new(&b, k, n), Mat::new(&b, n, k).t()] {
                let product = |first: usize, rows: usize| {
                    let mut c = vec![0.5f32; rows * n];
                    let a = Mat::new(&a, 130, k).rows(first, rows);
                    matmul_by_rows(&mut c, n, 1.0, 2.0, a, b).unwrap();
                    c.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let whole = product(0, 130);
                for (first, rows) in [(0, 1), (129, 1), (3, 2), (10, 3), (5, 17), (60, 64), (0, 65), (1, 129)] {
                    let same = product(first, rows) == whole[first * n..(first + rows) * n];
                    assert!(same, "{rows} rows of {n} from {first}, sums of {k}");
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_definition_on_strided_views() {
        let (m, n, k) = (5, 7, 9);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..n * (k + 2)).map(|i| (i as f32 * 0.11).cos()).collect();
        let mut c = vec![2.0f32; m * (n + 1)];
        matmul(&mut c, n + 1, 0.5, 2.0, Mat::new(&a, m, k), Mat::strided(&b, n, k + 2, k + 2).columns(1, k).t())
            .unwrap();
        for i in 0..m {
            for j in 0..n {
                let dot: f32 = (0..k).map(|l| a[i * k + l] * b[j * (k + 2) + 1 + l]).sum();
                assert!((c[i * (n + 1) + j] - (1.0 + 2.0 * dot)).abs() < 1e-5);
            }
            assert_eq!(c[i * (n + 1) + n], 2.0, "the gap between rows is not written");
        }
    }

    #[test]
    fn refuses_views_past_their_data() {
        let mut c = vec![0.0; 4];
        assert!(matmul(&mut c, 2, 0.0, 1.0, Mat::new(&[1.0; 3], 2, 2), Mat::new(&[1.0; 4], 2, 2)).is_err());
        assert!(matmul(&mut c, 2, 0.0, 1.0, Mat::new(&[1.0; 6], 2, 3), Mat::new(&[1.0; 4], 2, 2)).is_err());
    }
}
