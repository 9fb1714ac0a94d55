//! Sums in a fixed order (kernels/reduce.cu).

use bytemuck::{Pod, Zeroable};

use super::{Gpu, Grid, Operand, Ptr};
use crate::error::Result;

/// Partial sums from which on a block has 32 threads for each column, not 4.
const MANY: usize = 32;

/// Columns of a block that reduces.
const COLUMNS: usize = 32;

/// Columns of a block that sums groups.
const GROUP_COLUMNS: usize = 128;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ReducePartials {
    partial: Ptr,
    out: [Ptr; 3],
    sums: Ptr,
    split: i64,
    part: i64,
    out_row: i64,
    out_batch: i64,
    sums_batch: i64,
    m: i32,
    n: i32,
    splits: i32,
    apart: i32,
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

impl Gpu {
    /// out (m, n) += Σ_s partial (splits, m, n), for each of a batch, where the next of `splits` lies `part` values further.
    /// Behind the products of a part stand m values that are summed likewise, if `sums` (with the distance from one of a
    /// batch to the next) is not null.
    pub fn reduce_products(
        &self,
        (partial, part): (Ptr, usize),
        splits: usize,
        (m, n): (usize, usize),
        batches: usize,
        (out, sums): (Operand, (Ptr, usize)),
    ) -> Result<()> {
        let args = ReducePartials {
            partial,
            out: [out.at, Ptr::NULL, Ptr::NULL],
            sums: sums.0,
            split: part as i64,
            part: (splits * part) as i64,
            out_row: out.row as i64,
            out_batch: out.batch as i64,
            sums_batch: sums.1 as i64,
            m: m as i32,
            n: n as i32,
            splits: splits as i32,
            apart: 0,
        };
        self.reduce(args, batches)
    }

    /// Each of three outs (d) += Σ_s of its part of partial (splits, 3, d); those that are null are left out.
    pub fn reduce_three_partials(&self, partial: Ptr, splits: usize, d: usize, out: [Ptr; 3]) -> Result<()> {
        let args = ReducePartials {
            partial,
            out,
            sums: Ptr::NULL,
            split: 3 * d as i64,
            part: d as i64,
            out_row: 0,
            out_batch: 0,
            sums_batch: 0,
            m: 1,
            n: d as i32,
            splits: splits as i32,
            apart: 1,
        };
        self.reduce(args, 3)
    }

    fn reduce(&self, args: ReducePartials, batches: usize) -> Result<()> {
        let (kernel, threads) = match args.splits as usize {
            ..MANY => ("reduce_partials", 128),
            _ => ("reduce_many_partials", 1024),
        };
        let sums = if args.sums == Ptr::NULL { 0 } else { args.m };
        let columns = args.m as usize * args.n as usize + sums as usize;
        self.launch(kernel, Grid { blocks: [columns.div_ceil(COLUMNS), batches, 1], threads, shared: 0 }, &args)
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
        let blocks = [groups, columns.div_ceil(GROUP_COLUMNS), 1];
        self.launch("group_sums", Grid { blocks, threads: 128, shared: 0 }, &args)
    }
}
