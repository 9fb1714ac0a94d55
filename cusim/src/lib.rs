//! A CUDA driver in software.

pub mod ptx;
