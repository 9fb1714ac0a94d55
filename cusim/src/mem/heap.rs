//! Memory that kernels allocate and free themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every allocation begins at a multiple of this.
const ALIGNMENT: u64 = 16;
/// At least this many bytes lie between allocations.
const GAP: u64 = 64;
/// Address space is this many times the bytes that may be in use, so that freed memory need not be handed out again soon.
const SPARE: u64 = 64;
/// But no more than this.
const MAX_SPACE: u64 = 16 << 30;

/// The heap of a device.
pub struct Heap {
    start: u64,
    end: u64,
    limit: u64,
    state: Mutex<State>,
}

struct State {
    blocks: BTreeMap<u64, Block>,
    /// Those that are freed, the oldest first.
    freed: VecDeque<u64>,
    next: u64,
    used: u64,
    count: u64,
}

/// What was allocated.
#[derive(Clone, Debug)]
pub struct Block {
    /// First address.
    pub start: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// Counted from 1.
    pub number: u64,
    /// Whether it was freed.
    pub freed: bool,
}

impl Block {
    /// How reports call it.
    pub fn describe(&self) -> String {
        let freed = if self.freed { ", freed" } else { "" };
        format!("allocation #{} of {} bytes (malloc in a kernel{freed})", self.number, self.bytes)
    }

    /// Whether an address is in it.
    pub fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.bytes.max(1)
    }
}

impl Heap {
    /// Bytes of address space for a heap of which so many bytes may be in use.
    pub fn space(limit: u64) -> u64 {
        limit.saturating_mul(SPARE).min(MAX_SPACE).max(limit)
    }

    /// A heap in this range, of which so many bytes may be in use at a time.
    pub fn new(start: u64, end: u64, limit: u64) -> Self {
        let state = State { blocks: BTreeMap::new(), freed: VecDeque::new(), next: start, used: 0, count: 0 };
        Self { start, end, limit, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an address belongs to it, allocated or not.
    pub fn spans(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Allocates; where, and whether another allocation was there before. `None` if too much is in use.
    pub fn allocate(&self, bytes: u64) -> Option<(u64, bool)> {
        let mut state = self.state();
        let used = state.used.checked_add(bytes).filter(|used| bytes > 0 && *used <= self.limit)?;
        let room = (bytes + GAP).next_multiple_of(ALIGNMENT);
        let fresh = state.next + room <= self.end;
        let start = if fresh { state.next } else { state.reuse(bytes)? };
        if fresh {
            state.next += room;
        }
        state.used = used;
        state.count += 1;
        let number = state.count;
        state.blocks.insert(start, Block { start, bytes, number, freed: false });
        Some((start, !fresh))
    }

    /// Frees what begins at an address; what is wrong with that if it cannot be freed.
    pub fn free(&self, start: u64) -> Result<(), String> {
        let mut state = self.state();
        let Some(block) = state.blocks.get_mut(&start) else {
            return Err("no memory that a kernel allocated begins there".to_string());
        };
        if block.freed {
            return Err(format!("double free: {}", block.describe()));
        }
        block.freed = true;
        let bytes = block.bytes;
        state.used -= bytes;
        state.freed.push_back(start);
        Ok(())
    }

    /// The last allocation that begins at or before an address, freed or not.
    pub fn before(&self, address: u64) -> Option<Block> {
        self.state().blocks.range(..=address).next_back().map(|(_, block)| block.clone())
    }
}

impl State {
    /// The place of the oldest freed allocation with room for so many bytes.
    fn reuse(&mut self, bytes: u64) -> Option<u64> {
        let at = self.freed.iter().position(|start| self.blocks[start].bytes >= bytes)?;
        self.freed.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_comes_back_only_when_there_is_no_other() {
        let heap = Heap::new(1 << 20, (1 << 20) + 1024, 200);
        let first = heap.allocate(100).unwrap();
        let second = heap.allocate(100).unwrap();
        assert!(!first.1 && !second.1 && second.0 >= first.0 + 100 && second.0.is_multiple_of(ALIGNMENT));
        assert!(heap.allocate(1).is_none(), "200 bytes are in use");
        assert!(heap.free(second.0 + 1).is_err());
        heap.free(first.0).unwrap();
        assert!(heap.free(first.0).unwrap_err().contains("double free"));
        let mut last = second;
        while !last.1 {
            heap.free(last.0).unwrap();
            last = heap.allocate(100).unwrap();
        }
        assert_eq!(last.0, first.0, "the one that was freed first");
        assert!(heap.before(last.0 + 5).is_some_and(|block| block.holds(last.0 + 99) && !block.freed));
    }
}
