//! Types that numbers are stored in.

use std::fmt;

use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

use super::BlockType;

/// Type of the numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    U8,
    I64,
    U64,
    F16,
    BF16,
    F32,
    F64,
}

impl DType {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            DType::U8 => 1,
            DType::F16 | DType::BF16 => 2,
            DType::F32 => 4,
            DType::I64 | DType::U64 | DType::F64 => 8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Type of activations in memory. Sums are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    Bf16,
    F16,
}

impl Element {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 | Element::F16 => 2,
        }
    }

    /// Of what there is for f32, bf16 and f16, that for this type.
    pub fn choose<T: Copy>(self, [f32, bf16, f16]: [T; 3]) -> T {
        match self {
            Element::F32 => f32,
            Element::Bf16 => bf16,
            Element::F16 => f16,
        }
    }
}

/// What weights are kept and multiplied in; sums are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats: the reference.
    #[default]
    F32,
    /// 16-bit floats with 11 significant bits, as the files of Llama 2 are.
    F16,
    /// 16-bit floats with 8 significant bits, as the files of Llama 3 are.
    Bf16,
    /// 8-bit integers with one scale for 128 (or 64) weights of a row.
    Int8,
    /// 4-bit integers with one scale for 64 weights of a row.
    Int4,
    /// In the blocks of GGUF files: of these types, or made here.
    #[serde(untagged)]
    Blocks(BlockType),
}

impl clap::ValueEnum for Precision {
    fn value_variants<'a>() -> &'a [Precision] {
        &[
            Precision::F32,
            Precision::F16,
            Precision::Bf16,
            Precision::Int8,
            Precision::Int4,
            Precision::Blocks(BlockType::Q8_0),
            Precision::Blocks(BlockType::Q6K),
            Precision::Blocks(BlockType::Q5K),
            Precision::Blocks(BlockType::Q4K),
            Precision::Blocks(BlockType::Q4_0),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Precision::F32 => "32-bit floats: the reference",
            Precision::F16 => "16-bit floats with 11 significant bits, as the files of Llama 2 are",
            Precision::Bf16 => "16-bit floats with 8 significant bits, as the files of Llama 3 are",
            Precision::Int8 => "8-bit integers with one scale for 128 (or 64) weights of a row",
            Precision::Int4 => "4-bit integers with one scale for 64 weights of a row",
            Precision::Blocks(BlockType::Q8_0) => {
                "8-bit integers with one scale for 32 weights, as GGUF files have them"
            }
            Precision::Blocks(BlockType::Q6K) => {
                "6-bit integers with one scale for 16 weights, as GGUF files have them"
            }
            Precision::Blocks(BlockType::Q5K) => {
                "5-bit integers with scale and least value for 32 weights; some layers are q6_k, as in Q5_K_M"
            }
            Precision::Blocks(BlockType::Q4K) => {
                "4-bit integers with scale and least value for 32 weights; some layers are q6_k, as in Q4_K_M"
            }
            Precision::Blocks(BlockType::Q4_0) => {
                "4-bit integers with one scale for 32 weights, as GGUF files have them"
            }
            Precision::Blocks(_) => return None,
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl Precision {
    /// As it is asked for.
    fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
            Precision::Int4 => "int4",
            Precision::Blocks(kind) => kind.name(),
        }
    }

    /// Type of the activations that go with weights of this precision on a device.
    pub fn element(self) -> Element {
        match self {
            Precision::F32 => Element::F32,
            Precision::F16 | Precision::Blocks(_) => Element::F16,
            Precision::Bf16 | Precision::Int8 | Precision::Int4 => Element::Bf16,
        }
    }

    /// Bytes of `count` weights, without scales, which blocks have inside.
    pub fn bytes(self, count: usize) -> usize {
        match self {
            Precision::F32 => 4 * count,
            Precision::Bf16 | Precision::F16 => 2 * count,
            Precision::Int8 => count,
            Precision::Int4 => count / 2,
            Precision::Blocks(kind) => kind.bytes(count),
        }
    }
}

impl From<Precision> for Element {
    fn from(precision: Precision) -> Element {
        precision.element()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
