//! Sums in a fixed order (kernels/reduce.cu).

use std::collections::HashMap;

use bytemuck::{Pod, Zeroable};

use super::matmul::Operand;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Launches, Ptr, Target};
use crate::error::Result;

/// The most reductions of one launch, and the most sums by groups.
const REDUCTIONS: usize = 42;
const INSTANCES: usize = 16;

/// Partial sums from which on a block has 32 threads for each column, not 4.
const MANY: usize = 32;

/// Which of a reduction's arrays is that of the sums behind a product.
const SUMS: usize = 3;

/// Columns of a block that reduces.
const COLUMNS: usize = 32;

/// Columns of a block that sums groups.
const GROUP_COLUMNS: usize = 128;

/// FLOPs of adding up so many parts of each column: as they are summed by the threads of a column, and these in turn.
pub fn parts(splits: usize, columns: usize) -> u64 {
    let threads = if splits < MANY { 4 } else { 32 };
    ((splits + threads) * columns) as u64
}

/// FLOPs of [`GroupSums::add`] of so many rows in so many groups: four warps to 128 columns of a group, each of which
/// adds rows (fma with 1).
pub fn group_sums(rows: usize, groups: usize, columns: usize) -> u64 {
    (2 * rows * columns.next_multiple_of(GROUP_COLUMNS) + 4 * groups * columns) as u64
}

/// Parts of sums that are still to be added to where they belong: a launch for those of few parts and one for those of many.
pub struct Sums<'a> {
    gpu: &'a Gpu,
    queued: Vec<Reduction>,
    /// The parts.
    partials: Vec<DeviceBuffer<f32>>,
}

/// The kernels' argument.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Reduction {
    partial: Ptr,
    /// Where the sums go: three arrays, and that of the sums behind a product's.
    out: [Ptr; 4],
    split: i32,
    part: i32,
    out_row: i32,
    out_batch: i32,
    sums_batch: i32,
    m: i32,
    n: i32,
    splits: i32,
    apart: i32,
    batches: i32,
    /// Bit i: out[i] is added to.
    adds: i32,
    padding: i32,
}

/// Sums of rows by groups that run at once.
pub struct GroupSums<'a>(Launches<'a, GroupArgs>);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GroupArgs {
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

    /// None yet.
    pub fn group_sums(&self) -> GroupSums<'_> {
        GroupSums(self.launches("group_sums", INSTANCES, 128))
    }
}

impl GroupSums<'_> {
    /// And out (groups, columns) = Σ over each group's members of their rows of x.
    pub fn add(
        &mut self,
        x: Ptr,
        columns: usize,
        (offsets, members): (Ptr, Ptr),
        groups: usize,
        out: Target,
    ) -> Result<()> {
        let (out, adds) = (out.at, out.adds as i32);
        let args = GroupArgs { x, out, offsets, members, columns: columns as i32, adds };
        self.0.push(groups * columns.div_ceil(GROUP_COLUMNS), args, &[out])
    }

    /// Runs them.
    pub fn run(self) -> Result<()> {
        self.0.run()
    }
}

impl Sums<'_> {
    /// out (m, n) = Σ_s partial (splits, m, n), for each of a batch, where the next of `splits` lies `part` values further;
    /// with `adds` added to what is there. Behind the products of a part stand m values that are summed likewise, if `sums`
    /// (with the distance from one of a batch to the next) is not null.
    pub fn add_products(
        &mut self,
        (partial, part): (DeviceBuffer<f32>, usize),
        splits: usize,
        (m, n): (usize, usize),
        batches: usize,
        (out, adds, sums): (Operand, bool, (Target, usize)),
    ) {
        self.queued.push(Reduction {
            partial: partial.ptr(),
            out: [out.at, Ptr::NULL, Ptr::NULL, sums.0.at],
            split: part as i32,
            part: (splits * part) as i32,
            out_row: out.row as i32,
            out_batch: out.batch as i32,
            sums_batch: sums.1 as i32,
            m: m as i32,
            n: n as i32,
            splits: splits as i32,
            apart: 0,
            batches: batches as i32,
            adds: adds as i32 | (sums.0.adds as i32) << SUMS,
            padding: 0,
        });
        self.partials.push(partial);
    }

    /// Each of three outs (d) = Σ_s of its part of partial (splits, 3, d); those that are null are left out.
    pub fn add_three(&mut self, partial: DeviceBuffer<f32>, splits: usize, d: usize, out: [Target; 3]) {
        let [a, b, c] = out.map(|out| out.at);
        self.queued.push(Reduction {
            partial: partial.ptr(),
            out: [a, b, c, Ptr::NULL],
            split: 3 * d as i32,
            part: d as i32,
            out_row: 0,
            out_batch: 0,
            sums_batch: 0,
            m: 1,
            n: d as i32,
            splits: splits as i32,
            apart: 1,
            batches: 3,
            adds: (0..3).map(|i| (out[i].adds as i32) << i).sum(),
            padding: 0,
        });
        self.partials.push(partial);
    }

    /// Whether these add to an array.
    pub fn has(&self, at: Ptr) -> bool {
        self.queued.iter().any(|reduction| reduction.out.contains(&at))
    }

    /// Adds them.
    pub fn run(mut self) -> Result<()> {
        // Whoever asked first was told that nothing is there yet; sums of few parts now come first.
        let mut there: HashMap<Ptr, bool> = HashMap::new();
        for reduction in &self.queued {
            for (i, &at) in reduction.out.iter().enumerate() {
                *there.entry(at).or_insert(true) &= reduction.adds >> i & 1 != 0;
            }
        }
        for (kernel, threads, many) in [("reduce_partials", 128, false), ("reduce_many_partials", 1024, true)] {
            let mut launches = self.gpu.launches(kernel, REDUCTIONS, threads);
            for reduction in self.queued.iter_mut().filter(|r| (r.splits as usize >= MANY) == many) {
                let there = reduction.out.map(|at| there.insert(at, true) == Some(true));
                reduction.adds = there.iter().enumerate().map(|(i, &adds)| (adds as i32) << i).sum();
                launches.push(reduction.blocks(), *reduction, &reduction.out)?;
            }
            launches.run()?;
        }
        Ok(())
    }
}

impl Reduction {
    fn blocks(&self) -> usize {
        let sums = if self.out[SUMS] == Ptr::NULL { 0 } else { self.m };
        (self.m as usize * self.n as usize + sums as usize).div_ceil(COLUMNS) * self.batches as usize
    }
}
