//! What encoders that are trained have in common: parameters by the names that files give them, layers on a tape, which of the
//! weights are trained, and the directory that they become.

mod files;
mod kept;
mod layers;
mod parameter;
mod tuned;
pub mod weights;

use std::path::Path;

pub(super) use files::Beside;
pub(super) use kept::Kept;
pub use layers::{Layers, Masks, States};
pub(super) use parameter::List;
pub use parameter::{Depth, Parameter, Role, Tower};
pub use tuned::{Tuned, Tuning};

use crate::error::Error;

/// The largest width, number of layers and the like that are trained: with these, no count of parameters overflows.
pub(super) const LARGEST: usize = 1 << 16;

/// Most layers of a tower: more have more tensors than a file's header may name.
pub(super) const MOST_LAYERS: usize = 1 << 10;

/// A size of a directory's `config.json` that no encoder has which is trained.
pub(super) fn absurd(folder: &Path, name: &str, size: usize) -> Error {
    let reason =
        format!("`{name}` is {size}: encoders of sizes up to {LARGEST} and of {MOST_LAYERS} layers are trained");
    Error::file(folder.join("config.json"), reason)
}

/// Sizes of a tower's blocks; without layers for what an encoder does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// How many there are.
    pub layers: usize,
    /// Width of their states.
    pub width: usize,
    /// Width of their MLPs' hidden layers.
    pub inner: usize,
}

/// Sizes of what a step on an encoder computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes {
    /// Of texts.
    pub text: Blocks,
    /// Of images.
    pub vision: Blocks,
    /// Patches of an image, the class token among them.
    pub patches: usize,
    /// Of blocks whose maps shrink from one to the next, as a ResNet's do, from below. Empty for transformers.
    pub maps: Vec<Maps>,
}

/// Values in a block: of an image, or of a row of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// Of what goes into it.
    pub input: u64,
    /// That a step keeps of it, at least.
    pub kept: u64,
}
