//! The CPU: vector loops compiled for the instruction set found at run time, matrix products, recycled memory.
//!
//! Work is split into chunks whose borders depend on shapes alone, never on the number of threads, and partial
//! sums are added in a fixed order. So results have the same bits whatever the thread count.

mod attention;
mod buffer;
mod layer_norm;
mod linear;
mod matmul;
pub mod vector;

pub use attention::{Attended, attend, attend_backward};
pub use buffer::Buffer;
pub use layer_norm::{LayerNormGrads, layer_norm_backward, layer_norm_forward};
pub use linear::{Linear, ROW_CHUNK, add_column_sums, linear, linear_backward_input, linear_backward_weight, segments};
pub use matmul::{Mat, matmul};

/// Runs `f` compiled for the widest vector instructions this processor has. The loops inside must be inlined
/// into the closure, else they keep the baseline instruction set.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
