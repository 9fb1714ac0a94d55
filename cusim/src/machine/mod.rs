//! What lowering, execution, checks and counters all speak of: lanes, addresses, accesses, faults, kernels and grids.

pub mod access;
pub mod address;
pub mod barrier;
pub mod fault;
pub mod grid;
pub mod listing;
pub mod names;

/// Lanes of a warp.
pub const LANES: usize = 32;

/// One bit per lane.
pub type Mask = u32;
