//! Sums in a fixed order (kernels/reduce.cu).

use bytemuck::{Pod, Zeroable};

use super::matmul::Operand;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Target};
use crate::error::Result;

/// The most reductions of one launch.
const REDUCTIONS: usize = 8;

/// Partial sums from which on a block has 32 threads for each column, not 4.
const MANY: usize = 32;

/// Columns of a block that reduces.
const COLUMNS: usize = 32;

/// Columns of a block that sums groups.
const GROUP_COLUMNS: usize = 128;

/// FLOPs of adding up so many parts of each column: as they are summed by the threads of a column, and these in turn.
pub fn parts(splits: usize, columns: usize) -> u64 {
    parts_beside(splits, columns, splits)
}

/// The same in a launch whose other sums have up to `most` parts, which decides how many threads a column has.
pub fn parts_beside(splits: usize, columns: usize, most: usize) -> u64 {
    let threads = if splits.max(most) < MANY { 4 } else { 32 };
    ((splits + threads) * columns) as u64
}

/// FLOPs of [`Gpu::add_group_sums`] of so many rows in so many groups: four warps to 128 columns of a group, each of which
/// adds rows (fma with 1).
pub fn group_sums(rows: usize, groups: usize, columns: usize) -> u64 {
    (2 * rows * columns.next_multiple_of(GROUP_COLUMNS) + 4 * groups * columns) as u64
}

/// Parts of sums that are still to be added to where they belong, in one launch where they are not many.
#[derive(Debug)]
pub struct Sums<'a> {
    gpu: &'a Gpu,
    queued: Vec<Reduction>,
    /// The parts.
    partials: Vec<DeviceBuffer<f32>>,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Reduction {
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
    batches: i32,
    /// Bit i: out[i] is added to; bit 3: sums.
    adds: i32,
}

/// The kernels' argument.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Reductions {
    of: [Reduction; REDUCTIONS],
    first: [i32; REDUCTIONS],
    count: i32,
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
    adds: i32,
}

impl Gpu {
    /// None yet.
    pub fn sums(&self) -> Sums<'_> {
        Sums { gpu: self, queued: vec![], partials: vec![] }
    }

    /// out (groups, columns) = Σ over each group's members of their rows of x.
    pub fn add_group_sums(
        &self,
        x: Ptr,
        columns: usize,
        (offsets, members): (Ptr, Ptr),
        groups: usize,
        out: Target,
    ) -> Result<()> {
        let (out, adds) = (out.at, out.adds as i32);
        let args = GroupSums { x, out, offsets, members, columns: columns as i32, adds };
        let blocks = [groups, columns.div_ceil(GROUP_COLUMNS), 1];
        self.launch("group_sums", Grid { blocks, threads: 128, shared: 0 }, &args)
    }
}

impl Sums<'_> {
    /// out (m, n) = Σ_s partial (splits, m, n), for each of a batch, where the next of `splits` lies `part` values further;
    /// with `adds` added to what is there. Behind the products of a part stand m values that are summed likewise, if `sums` (with the distance from one of a
    /// batch to the next) is not null.
    pub fn add_products(
        &mut self,
        (partial, part): (DeviceBuffer<f32>, usize),
        splits: usize,
        (m, n): (usize, usize),
        batches: usize,
        (out, adds, sums): (Operand, bool, (Target, usize)),
    ) -> Result<()> {
        let reduction = Reduction {
            partial: partial.ptr(),
            out: [out.at, Ptr::NULL, Ptr::NULL],
            sums: sums.0.at,
            split: part as i64,
            part: (splits * part) as i64,
            out_row: out.row as i64,
            out_batch: out.batch as i64,
            sums_batch: sums.1 as i64,
            m: m as i32,
            n: n as i32,
            splits: splits as i32,
            apart: 0,
            batches: batches as i32,
            adds: adds as i32 | (sums.0.adds as i32) << 3,
        };
        self.queue(reduction, partial)
    }

    /// Each of three outs (d) = Σ_s of its part of partial (splits, 3, d); those that are null are left out.
    pub fn add_three(&mut self, partial: DeviceBuffer<f32>, splits: usize, d: usize, out: [Target; 3]) -> Result<()> {
        let reduction = Reduction {
            partial: partial.ptr(),
            out: out.map(|out| out.at),
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
            batches: 3,
            adds: (0..3).map(|i| (out[i].adds as i32) << i).sum(),
        };
        self.queue(reduction, partial)
    }

    fn queue(&mut self, reduction: Reduction, partial: DeviceBuffer<f32>) -> Result<()> {
        // Two that add to the same place must not run at once.
        let meets = self.queued.iter().any(|other| other.out[0] == reduction.out[0]);
        if meets || self.queued.len() == REDUCTIONS {
            self.launch()?;
        }
        self.queued.push(reduction);
        self.partials.push(partial);
        Ok(())
    }

    /// Adds those that were not yet.
    pub fn run(mut self) -> Result<()> {
        self.launch()
    }

    fn launch(&mut self) -> Result<()> {
        let mut args = Reductions { count: self.queued.len() as i32, ..Zeroable::zeroed() };
        let (mut blocks, mut splits) = (0, 0);
        for (i, reduction) in self.queued.drain(..).enumerate() {
            (args.of[i], args.first[i]) = (reduction, blocks as i32);
            blocks += reduction.blocks();
            splits = splits.max(reduction.splits as usize);
        }
        if blocks == 0 {
            return Ok(());
        }
        let (kernel, threads) = match splits {
            ..MANY => ("reduce_partials", 128),
            _ => ("reduce_many_partials", 1024),
        };
        self.gpu.launch(kernel, Grid::line(blocks, threads), &args)?;
        self.partials.clear();
        Ok(())
    }
}

impl Reduction {
    fn blocks(&self) -> usize {
        let sums = if self.sums == Ptr::NULL { 0 } else { self.m };
        (self.m as usize * self.n as usize + sums as usize).div_ceil(COLUMNS) * self.batches as usize
    }
}
