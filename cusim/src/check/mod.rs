//! The sanitizer: what a correct program never does, and how it is reported.

pub mod block;
pub mod race;
pub mod report;
pub mod stamp;
