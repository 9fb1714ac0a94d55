//! Barriers of a block.

use super::Mask;

/// Arrival at a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Which of the block's sixteen barriers.
    pub barrier: u32,
    /// How many threads it waits for; all threads of the block that have not ended if `None`.
    pub threads: Option<u32>,
    /// Whether the lanes wait or only announce themselves.
    pub waits: bool,
    /// Whether all lanes of the warp must come together.
    pub aligned: bool,
    /// A reduction, with the lanes whose predicate is true, and the register for the result.
    pub reduction: Option<(Reduction, Mask, u32)>,
}

/// What a barrier computes over its threads' predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// How many are true.
    Count,
    /// Whether all are.
    All,
    /// Whether any is.
    Any,
}

/// A barrier in use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Barrier {
    /// Threads that have arrived.
    pub arrived: u32,
    /// How many it waits for, if the instruction says so.
    pub expected: Option<u32>,
    /// Threads whose predicate was true.
    pub count: u32,
    /// Warps that have arrived, as bits.
    pub warps: u32,
    /// Those of them that wait.
    pub waiting: u32,
    /// Lanes of each warp that have arrived.
    pub lanes: [Mask; 32],
    /// The instruction that the last of them came to.
    pub origin: u32,
}

/// What a barrier to which everybody has come found.
pub struct Completed {
    /// Threads whose predicate was true.
    pub count: u32,
    /// Threads that took part.
    pub threads: u32,
    /// Warps that took part, as bits.
    pub warps: u32,
    /// Those of them that waited.
    pub waiting: u32,
}
