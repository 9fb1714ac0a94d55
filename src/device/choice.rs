//! Which device a user asks for.

use std::fmt;
use std::str::FromStr;

use super::Gpu;
use super::cpu::{has_bf16, has_floats, has_integers};
use super::cuda::{Arithmetic, count, has_driver, kernels};
use crate::error::{Error, Result};

/// A device as the command line names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A CUDA device if a usable one is found, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(DeviceChoice::Auto),
            ("cpu", _) => Ok(DeviceChoice::Cpu),
            ("cuda", _) => Ok(DeviceChoice::Cuda(0)),
            (_, Some(Ok(ordinal))) => Ok(DeviceChoice::Cuda(ordinal)),
            _ => Err("is none of auto, cpu, cuda, cuda:N".into()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DeviceChoice::Auto => write!(f, "auto"),
            DeviceChoice::Cpu => write!(f, "cpu"),
            DeviceChoice::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl DeviceChoice {
    /// Opens it; `None` is the CPU. A device that was found but cannot be used is a warning if any would do.
    pub fn open(self, arithmetic: Arithmetic) -> Result<Option<Gpu>> {
        match self {
            DeviceChoice::Cpu => Ok(None),
            DeviceChoice::Cuda(ordinal) => Gpu::open(ordinal, arithmetic).map(Some),
            DeviceChoice::Auto if !has_driver() => {
                tracing::debug!("computing on the CPU, since there is no CUDA driver");
                Ok(None)
            }
            DeviceChoice::Auto if kernels::EMBEDDED.is_empty() => {
                tracing::warn!(
                    "computing on the CPU, since this program was built without CUDA kernels, though there is a CUDA driver; \
                     scripts/cuda-toolchain.sh fetches nvcc, then build again"
                );
                Ok(None)
            }
            DeviceChoice::Auto => match count().and_then(|_| Gpu::open(0, arithmetic)) {
                Ok(gpu) => Ok(Some(gpu)),
                Err(error @ Error::Device { .. }) => {
                    tracing::warn!("computing on the CPU, since {error}");
                    Ok(None)
                }
                Err(error) => Err(error),
            },
        }
    }
}

/// What computes, in words.
pub fn describe(gpu: Option<&Gpu>) -> String {
    match gpu {
        Some(gpu) => {
            format!("{gpu:?}, {} arithmetic", gpu.arithmetic().name())
        }
        None => format!("cpu, {} threads", rayon::current_num_threads()),
    }
}

/// What decides about the last bits of a result: the processor's instructions, or the card; not how many threads there are, nor
/// which of several like cards it is.
pub fn arithmetic_of(gpu: Option<&Gpu>) -> String {
    match gpu {
        Some(gpu) => describe(Some(gpu)).split_once(' ').map_or_else(String::new, |(_, card)| format!("cuda {card}")),
        None => {
            let instructions = [(has_floats(), "AVX-512"), (has_bf16(), "BF16"), (has_integers(), "VNNI")];
            let there = instructions.iter().filter(|(there, _)| *there).map(|(_, name)| format!(" {name}"));
            format!("cpu {}{}", std::env::consts::ARCH, there.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        for (name, choice) in [("cpu", DeviceChoice::Cpu), ("cuda:3", DeviceChoice::Cuda(3))] {
            assert_eq!((name.parse(), choice.to_string().as_str()), (Ok(choice), name));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert!(["gpu", "cuda:", "cuda:-1", ""].iter().all(|name| name.parse::<DeviceChoice>().is_err()));
    }
}
