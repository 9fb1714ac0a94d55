//! What kernels spend where a warp has a row (kernels/warp_row.cuh), as cusim counts it.

/// Lanes of a warp.
pub const LANES: usize = 32;

/// FLOPs of a sum over the lanes of a warp, which each of them has: five additions.
pub const WARP_SUM: usize = 5 * LANES;

/// FLOPs of e to the power of x: range reduction, three multiply-adds in all and more, then ex2.
pub const EXP: usize = 11;

/// Values that a warp has of a row of d <= 256: all of its lanes' registers, whatever d. Wider rows are passed over, with lanes
/// left out where they end.
pub fn row(d: usize) -> usize {
    if d <= 256 { 256 } else { d }
}
