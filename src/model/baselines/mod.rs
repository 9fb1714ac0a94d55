//! Models of other papers on the same frozen features, a file each (docs/baselines.md has their equations).
//!
//! Names of parameters are those of `reference/baselines_reference.py`, which each is compared with.

mod bert;
mod blink;
mod clip;
mod drin;
mod dzmned;
mod ghmfc;
mod jmel;
mod mel_hi;
mod mimic;

pub use bert::Bert;
pub use blink::Blink;
pub use clip::{Clip, ClipProjected};
pub use drin::Drin;
pub use dzmned::Dzmned;
pub use ghmfc::Ghmfc;
pub use jmel::Jmel;
pub use mel_hi::MelHi;
pub use mimic::Mimic;

/// What nearly all of them heed.
const SETTINGS: &[&str] = &["d", "dropout"];

/// As [`SETTINGS`], of a model that learns by the hinge loss.
const WITH_MARGIN: &[&str] = &["d", "dropout", "margin"];
