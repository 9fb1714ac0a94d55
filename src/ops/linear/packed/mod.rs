//! Products of activations with weights, with bias, residual and activation function in their epilogue.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
mod bf16;
mod ceiling;
mod epilogue;
mod operand;
mod panels;
mod transposed;
mod value;

pub(super) use bf16::Line;
pub use bf16::{PANEL, PackedBf16};
pub use ceiling::bf16_ceiling;
pub use epilogue::{Activation, Epilogue};
pub use operand::{Operand, Windows};
pub use panels::Panels;
pub use transposed::TransposedF32;
pub use value::Value;
