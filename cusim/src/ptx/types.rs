//! Scalar types and state spaces.

/// What the bits of a [`ScalarType`] mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Untyped bits, `.b*`.
    Bits,
    /// Unsigned integer.
    Unsigned,
    /// Two's complement integer.
    Signed,
    /// Two unsigned 16-bit integers.
    UnsignedPair,
    /// Two signed 16-bit integers.
    SignedPair,
    /// IEEE binary float.
    Float,
    /// Two IEEE half-precision floats.
    FloatPair,
    /// Eight exponent bits, seven of fraction.
    BFloat,
    /// Two of the former.
    BFloatPair,
    /// Two floats of four exponent bits and three of fraction.
    E4M3Pair,
    /// Two floats of five exponent bits and two of fraction.
    E5M2Pair,
    /// 32-bit float whose low 13 fraction bits are ignored.
    TensorFloat,
    /// Predicate.
    Predicate,
    /// A texture, sampler or surface, which cusim does not have.
    Texture,
}

/// A fundamental type, such as `.u32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScalarType {
    /// What the bits mean.
    pub kind: Kind,
    /// How many bits; 1 for predicates.
    pub bits: u32,
}

impl ScalarType {
    /// The predicate type.
    pub const PREDICATE: Self = Self { kind: Kind::Predicate, bits: 1 };

    /// Untyped bits of this width.
    pub const fn bits(bits: u32) -> Self {
        Self { kind: Kind::Bits, bits }
    }

    /// Reads a type's name, without the dot.
    pub fn parse(name: &str) -> Option<Self> {
        use Kind::*;
        let (kind, bits) = match name {
            "pred" => (Predicate, 1),
            "f16" => (Float, 16),
            "f32" => (Float, 32),
            "f64" => (Float, 64),
            "f16x2" => (FloatPair, 32),
            "bf16" => (BFloat, 16),
            "bf16x2" => (BFloatPair, 32),
            "e4m3x2" => (E4M3Pair, 16),
            "e5m2x2" => (E5M2Pair, 16),
            "tf32" => (TensorFloat, 32),
            "b1" => (Bits, 1),
            "b4" => (Bits, 4),
            "b8" => (Bits, 8),
            "b16" => (Bits, 16),
            "b32" => (Bits, 32),
            "b64" => (Bits, 64),
            "b128" => (Bits, 128),
            "u4" => (Unsigned, 4),
            "u8" => (Unsigned, 8),
            "u16" => (Unsigned, 16),
            "u32" => (Unsigned, 32),
            "u64" => (Unsigned, 64),
            "u16x2" => (UnsignedPair, 32),
            "s4" => (Signed, 4),
            "s8" => (Signed, 8),
            "s16" => (Signed, 16),
            "s32" => (Signed, 32),
            "s64" => (Signed, 64),
            "s16x2" => (SignedPair, 32),
            "texref" | "samplerref" | "surfref" => (Texture, 64),
            _ => return None,
        };
        Some(Self { kind, bits })
    }

    /// Size in memory.
    pub fn bytes(self) -> u32 {
        self.bits.div_ceil(8)
    }
}

/// A state space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Device memory.
    Global,
    /// Constant memory.
    Const,
    /// Memory of one block.
    Shared,
    /// Memory of one thread.
    Local,
    /// Parameters of a kernel or function.
    Param,
    /// Any of them, told apart by the address.
    Generic,
}

impl Space {
    /// Reads a space's name, without the dot.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "global" => Self::Global,
            "const" => Self::Const,
            // Without clusters, a block's own shared memory is all that there is of a cluster's.
            "shared" | "shared::cta" | "shared::cluster" => Self::Shared,
            "local" => Self::Local,
            "param" | "param::entry" | "param::func" => Self::Param,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Const => "const",
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Param => "param",
            Self::Generic => "generic",
        })
    }
}
