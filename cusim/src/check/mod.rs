//! The sanitizer: what a correct program never does, and how it is reported.

pub mod block;
mod copies;
pub mod race;
pub mod report;
pub mod stamp;
mod sync;
