//! What runs the arithmetic, and the few places that need `unsafe`.

pub mod cpu;
mod mapped_file;

pub use mapped_file::MappedFile;
