//! The CPU: vector loops compiled for the instruction set found at run time, matrix products, recycled memory.
//!
//! Work is split into chunks whose borders depend on shapes alone, never on the number of threads, and partial
//! sums are added in a fixed order. So results have the same bits whatever the thread count.

/// Evaluates an expression compiled for the widest vector instructions this processor has. The functions it calls
/// must be `#[inline(always)]`, else they keep the baseline instruction set, where a fused multiply-add is a call.
macro_rules! simd {
    ($($body:tt)*) => {
        $crate::device::cpu::dispatch(#[inline(always)] || { $($body)* })
    };
}

/// Runs a closure that `simd!` made. Not to be called with any other: without its attribute the closure is a
/// function of its own, compiled for the baseline.
#[inline(always)]
pub(crate) fn dispatch<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
pub(crate) use simd;

mod buffer;
mod instructions;
mod memory;
pub mod vector;

pub use buffer::{Buffer, HalfBuffer};
pub use instructions::{has_bf16, has_floats, has_integers};
pub use memory::{available_memory, keep_freed_memory, large_array, read_bandwidth};
