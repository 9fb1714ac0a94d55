//! Arrays: [`Tensor`], in which everything is computed; [`Weight`] and [`RowTable`], numbers that are read as files have them;
//! ragged sequences; files of safetensors, GGUF and PyTorch.

mod array;
mod as_rows;
pub mod blocks;
mod compute;
mod dtype;
mod feature_rows;
pub mod gguf;
mod indices;
mod later;
mod normalized;
mod on_device;
mod pickle;
pub mod quantized;
mod ragged;
mod row_table;
pub mod safetensors;
mod shards;
mod weight;

pub use array::Tensor;
pub(crate) use array::{Host, HostMut};
pub use blocks::BlockType;
pub use compute::Compute;
pub use dtype::{DType, Element, Precision};
pub use feature_rows::FeatureRows;
pub use indices::Indices;
pub use later::Later;
pub use normalized::NormalizedRows;
pub(crate) use on_device::fours;
pub use quantized::Bits;
pub use ragged::{Ragged, Sequences, Textbook};
pub use row_table::{RowTable, SharedSlice};
pub use shards::Shards;
pub(crate) use shards::{INDEX, SINGLE};
pub(crate) use weight::float_precision;
pub use weight::{Values, Weight};
