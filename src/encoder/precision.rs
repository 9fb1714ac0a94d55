//! Which arithmetic an encoder computes with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::device::Gpu;
use crate::device::cpu::PackedBf16;
use crate::device::cuda::encoder::Element;

/// Type of an encoder's weights and of the operands of its products; sums and residuals are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The reference.
    #[default]
    F32,
    /// Twice as fast or more where the processor has instructions for it.
    Bf16,
}

impl Precision {
    /// The faster one on this processor.
    pub fn fastest() -> Precision {
        if PackedBf16::is_native() { Precision::Bf16 } else { Precision::F32 }
    }
}

impl From<Precision> for Element {
    fn from(precision: Precision) -> Element {
        match precision {
            Precision::F32 => Element::F32,
            Precision::Bf16 => Element::Bf16,
        }
    }
}

/// Where and in which arithmetic an encoder computes.
#[derive(Clone, Debug)]
pub struct Compute {
    pub precision: Precision,
    /// The device; `None` is the CPU.
    pub gpu: Option<Gpu>,
}

impl Compute {
    /// The faster arithmetic of a device.
    pub fn fastest(gpu: Option<&Gpu>) -> Precision {
        if gpu.is_some() { Precision::Bf16 } else { Precision::fastest() }
    }

    /// Tokens of a forward pass over texts: enough rows to fill the products, on the CPU few enough that they stay in the
    /// cache between layers.
    pub fn tokens(&self) -> usize {
        if self.gpu.is_some() { 8192 } else { 512 }
    }

    /// Images of a forward pass; of them the same is true.
    pub fn images(&self) -> usize {
        if self.gpu.is_some() { 256 } else { 8 }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.gpu {
            Some(gpu) => write!(f, "{} on {gpu:?}", self.precision),
            None => write!(f, "{} on the CPU", self.precision),
        }
    }
}

impl From<&Compute> for Compute {
    fn from(compute: &Compute) -> Compute {
        compute.clone()
    }
}

impl From<Precision> for Compute {
    fn from(precision: Precision) -> Compute {
        Compute { precision, gpu: None }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        match text {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err("is none of f32, bf16".into()),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}
