//! Products of activations with weights, with bias, residual and activation function in their epilogue.

#[cfg(target_arch = "x86_64")]
pub(in crate::device::cpu) mod avx512;
mod ceiling;
mod epilogue;
mod operand;
mod packed;
mod panels;
mod transposed;
mod value;

pub use ceiling::bf16_ceiling;
pub use epilogue::{Activation, Epilogue};
pub use operand::{Operand, Windows};
pub(in crate::device::cpu) use packed::Line;
pub(super) use packed::PANEL;
pub use packed::PackedBf16;
pub(super) use panels::Panels;
pub use transposed::TransposedF32;
pub use value::Value;
