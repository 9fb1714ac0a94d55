//! Which arithmetic an encoder computes with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::device::cpu::PackedBf16;

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
