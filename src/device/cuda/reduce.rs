//! Sums in a fixed order and elementwise helpers (kernels/reduce.cu).

use bytemuck::{Pod, Zeroable};

use super::{Gpu, Grid, Operand, Ptr};
use crate::error::Result;

/// Rows that one block sums.
const ROWS_PER_BLOCK: usize = 128;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ReducePartials {
    partial: Ptr,
    out: Ptr,
    out_row: i64,
    out_batch: i64,
    m: i32,
    n: i32,
    splits: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ColumnSums {
    x: Ptr,
    partial: Ptr,
    rows: i32,
    columns: i32,
    rows_per_block: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GroupSums {
    x: Ptr,
    out: Ptr,
    offsets: Ptr,
    members: Ptr,
    columns: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Pointwise {
    x: Ptr,
    out: Ptr,
    length: i64,
}

impl Gpu {
    /// out (m, n) += Σ_s partial (splits, m, n), for each of a batch.
    pub fn reduce_partials(
        &self,
        partial: Ptr,
        splits: usize,
        (m, n): (usize, usize),
        batches: usize,
        out: Operand,
    ) -> Result<()> {
        let Operand { at, row, batch, .. } = out;
        let (m, n, splits) = (m as i32, n as i32, splits as i32);
        let (out_row, out_batch) = (row as i64, batch as i64);
        let args = ReducePartials { partial, out: at, out_row, out_batch, m, n, splits, padding: 0 };
        let mut grid = Grid::values(m as usize * n as usize, 256);
        grid.blocks[1] = batches;
        self.launch("reduce_partials", grid, &args)
    }

    /// out (columns) += Σ rows of x (rows, columns).
    pub fn add_column_sums(&self, x: Ptr, (rows, columns): (usize, usize), out: Ptr) -> Result<()> {
        let blocks = rows.div_ceil(ROWS_PER_BLOCK);
        let partial = self.alloc::<f32>("partial sums", blocks * columns)?;
        let (rows, rows_per_block) = (rows as i32, ROWS_PER_BLOCK as i32);
        let args = ColumnSums { x, partial: partial.ptr(), rows, columns: columns as i32, rows_per_block, padding: 0 };
        let grid = Grid { blocks: [blocks, columns.div_ceil(256), 1], threads: 256, shared: 0 };
        self.launch("column_sums", grid, &args)?;
        self.reduce_partials(partial.ptr(), blocks, (1, columns), 1, Operand::rows(out, columns))
    }

    /// out (groups, columns) += Σ over each group's members of their rows of x.
    pub fn add_group_sums(
        &self,
        x: Ptr,
        columns: usize,
        (offsets, members): (Ptr, Ptr),
        groups: usize,
        out: Ptr,
    ) -> Result<()> {
        let args = GroupSums { x, out, offsets, members, columns: columns as i32, padding: 0 };
        self.launch("group_sums", Grid::line(groups, 128), &args)
    }

    /// out += x
    pub fn add(&self, x: Ptr, length: usize, out: Ptr) -> Result<()> {
        self.launch("add", Grid::values(length, 256), &Pointwise { x, out, length: length as i64 })
    }

    /// dx = 0 where y, the output of ReLU, is 0.
    pub fn relu_backward(&self, y: Ptr, length: usize, dx: Ptr) -> Result<()> {
        self.launch("relu_backward", Grid::values(length, 256), &Pointwise { x: y, out: dx, length: length as i64 })
    }
}
