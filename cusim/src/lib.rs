//! A CUDA driver in software.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

pub mod abi;
pub mod check;
pub mod count;
pub mod driver;
pub mod exec;
pub mod fatbin;
pub mod json;
pub mod lower;
pub mod machine;
pub mod math;
pub mod mem;
pub mod module;
#[allow(non_snake_case, reason = "NCCL's names")]
pub mod nccl;
#[allow(non_snake_case, reason = "NVTX's names")]
pub mod nvtx;
pub mod ptx;
pub mod sandbox;
