//! Operations of language decoders (kernels/llama_*.cu).
//!
//! [`Rows`] are activations in f32, bf16 or f16; the residual stream, all sums and the logits are f32. A [`Weight`] stays in
//! the precision that it is stored in and is widened in registers.

mod attention;
mod linear;
mod rows;
mod sample;

pub use attention::{Heads, Layer, PAGE, Page, Sequences, Tile};
pub use linear::{Format, Gates, Numbers, Weight};
pub use rows::{Element, Rows};
