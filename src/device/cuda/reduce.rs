//! Sums in a fixed order and elementwise helpers (kernels/reduce.cu).

use bytemuck::{Pod, Zeroable};

use super::{Gpu, Grid, Operand, Ptr};
use crate::error::Result;

/// Rows that one block sums.
const ROWS_PER_BLOCK: usize = 128;

/// Partial sums from which on a block has 32 threads for each column, not 4.
const MANY: usize = 32;

/// Columns of a block.
const COLUMNS: usize = 32;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ReducePartials {
    partial: Ptr,
    out: [Ptr; 3],
    split: i64,
    part: i64,
    out_row: i64,
    out_batch: i64,
    m: i32,
    n: i32,
    splits: i32,
    apart: i32,
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
        let args = ReducePartials {
            partial,
            out: [out.at, Ptr::NULL, Ptr::NULL],
            split: (m * n) as i64,
            part: (splits * m * n) as i64,
            out_row: out.row as i64,
            out_batch: out.batch as i64,
            m: m as i32,
            n: n as i32,
            splits: splits as i32,
            apart: 0,
        };
        self.reduce(args, batches)
    }

    /// Each of three outs (d) += Σ_s of its part of partial (splits, 3, d); those that are null are left out.
    pub fn reduce_three_partials(&self, partial: Ptr, splits: usize, d: usize, out: [Ptr; 3]) -> Result<()> {
        let (split, part) = (3 * d as i64, d as i64);
        let (n, splits) = (d as i32, splits as i32);
        let args = ReducePartials { partial, out, split, part, out_row: 0, out_batch: 0, m: 1, n, splits, apart: 1 };
        self.reduce(args, 3)
    }

    fn reduce(&self, args: ReducePartials, batches: usize) -> Result<()> {
        let (kernel, threads) = match args.splits as usize {
            ..MANY => ("reduce_partials", 128),
            _ => ("reduce_many_partials", 1024),
        };
        let columns = args.m as usize * args.n as usize;
        self.launch(kernel, Grid { blocks: [columns.div_ceil(COLUMNS), batches, 1], threads, shared: 0 }, &args)
    }

    /// out (columns) += Σ rows of x (rows, columns).
    pub fn add_column_sums(&self, x: Ptr, (rows, columns): (usize, usize), out: Ptr) -> Result<()> {
        let blocks = rows.div_ceil(ROWS_PER_BLOCK);
        let partial = self.alloc::<f32>("partial sums", blocks * columns)?;
        let (rows, rows_per_block) = (rows as i32, ROWS_PER_BLOCK as i32);
        let args = ColumnSums { x, partial: partial.ptr(), rows, columns: columns as i32, rows_per_block, padding: 0 };
        let grid = Grid { blocks: [blocks, columns.div_ceil(COLUMNS), 1], threads: 256, shared: 0 };
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

    /// dx = 0 where y, the output of ReLU, is 0.
    pub fn relu_backward(&self, y: Ptr, length: usize, dx: Ptr) -> Result<()> {
        self.launch("relu_backward", Grid::values(length, 256), &Pointwise { x: y, out: dx, length: length as i64 })
    }
}
