//! Arithmetic with the rounding, flushing and NaN rules of PTX.
//!
//! Everything here is branch-free where it can be and always inlined, so that the compiler vectorises it over the
//! lanes of a warp.

pub mod approx;
pub mod convert;
pub mod float;
pub mod fp8;
pub mod half;
pub mod integer;
