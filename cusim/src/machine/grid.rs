//! A launch's shape.

use super::listing::Listing;

/// A grid of blocks that run a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Grid<'a> {
    /// The kernel.
    pub listing: &'a Listing,
    /// Blocks along each axis.
    pub extent: [u32; 3],
    /// Threads of a block along each axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
    /// Number of the launch, counted from 1.
    pub id: u64,
    /// The launches before it that may not have ended when it begins, where it may begin before they end.
    pub unfinished: &'a [u64],
}

impl Grid<'_> {
    /// Threads per block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Warps per block.
    pub fn warps(&self) -> usize {
        self.threads().div_ceil(32) as usize
    }

    /// Blocks in the grid.
    pub fn blocks(&self) -> u64 {
        self.extent.iter().map(|extent| u64::from(*extent)).product()
    }

    /// A block's place along each axis.
    pub fn place(&self, block: u64) -> [u64; 3] {
        let [width, height, _] = self.extent.map(u64::from);
        [block % width, block / width % height, block / width / height]
    }

    /// End of shared memory.
    pub fn shared_end(&self) -> u32 {
        self.listing.shared.dynamic_start + self.dynamic_shared
    }
}
