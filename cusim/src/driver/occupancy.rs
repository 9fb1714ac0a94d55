//! How many blocks of a kernel a multiprocessor has room for.

use super::device::{MAX_THREADS, Model, REGISTERS, RESERVED_SHARED};
use super::kernel::Function;

impl Function {
    /// Threads that a block may have.
    pub fn max_threads(&self) -> u32 {
        self.declared_threads().map_or(MAX_THREADS, |extent| extent.iter().product::<u32>().min(MAX_THREADS))
    }

    fn declared_threads(&self) -> Option<[u32; 3]> {
        let hints = &self.program.hints;
        hints.required_threads.or(hints.max_threads)
    }

    /// Registers per thread, as ptxas would about assign them.
    pub fn registers(&self) -> u32 {
        let hints = &self.program.hints;
        let needed = (self.program.registers + 8).next_multiple_of(8).clamp(16, 255);
        // A block of as many threads as are declared always fits.
        let blocks = hints.min_blocks.filter(|blocks| *blocks > 0).or_else(|| self.declared_threads().and(Some(1)));
        let by_bounds =
            blocks.map(|blocks| REGISTERS / (blocks * self.max_threads().next_multiple_of(32)).max(1) / 8 * 8);
        let limit = hints.max_registers.into_iter().chain(by_bounds).min().unwrap_or(255).max(16);
        needed.min(limit)
    }

    /// Blocks that fit a multiprocessor at once.
    pub fn blocks_per_sm(&self, model: &Model, threads: u32, dynamic_shared: u64) -> u32 {
        if threads == 0 || threads > self.max_threads() {
            return 0;
        }
        let threads = threads.next_multiple_of(32);
        let shared = u64::from(self.program.listing.shared.static_bytes) + dynamic_shared;
        if shared > model.shared_optin as u64 {
            return 0;
        }
        let shared = (shared + u64::from(RESERVED_SHARED)).next_multiple_of(128);
        // Registers are given to warps in pieces of 256.
        let registers = (self.registers() * 32).next_multiple_of(256) * (threads / 32);
        let limits = [
            model.blocks_per_sm as u32,
            model.threads_per_sm as u32 / threads,
            (model.shared_per_sm as u64 / shared) as u32,
            REGISTERS / registers.max(1),
        ];
        limits.into_iter().min().unwrap_or(0)
    }
}
