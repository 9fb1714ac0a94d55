//! The sanitizer: what a correct program never does, and how it is reported.

pub mod block;
mod copies;
mod global;
pub mod log;
mod part;
mod race;
pub mod report;
mod shared;
pub mod stamp;
mod sync;
