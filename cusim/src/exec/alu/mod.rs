//! Instructions that compute a value from values, lane by lane.
//!
//! Each file maps opcodes to operations; an opcode or modifier that no file knows is reported when a function is
//! loaded.

mod bits;
pub mod compare;
mod convert;
mod eight_bits;
mod float;
mod half;
mod integer;

use super::op::OpFn;
use super::opcode::Opcode;
use crate::ptx::{Kind, ScalarType};

/// An operation and the types of its operands.
pub struct Rule {
    /// What to run.
    pub run: OpFn,
    /// Type of the result.
    pub dst: ScalarType,
    /// Types of the sources.
    pub src: Vec<ScalarType>,
}

impl Rule {
    /// All operands of one type.
    fn uniform(run: OpFn, ty: ScalarType, sources: usize) -> Self {
        Self { run, dst: ty, src: vec![ty; sources] }
    }

    fn new(run: OpFn, dst: ScalarType, src: &[ScalarType]) -> Self {
        Self { run, dst, src: src.to_vec() }
    }
}

const PRED: ScalarType = ScalarType { kind: Kind::Predicate, bits: 1 };
const B32: ScalarType = ScalarType::bits(32);

/// Finds the operation for an opcode; `None` if there is no such instruction.
pub fn lookup(opcode: &mut Opcode) -> Option<Rule> {
    let rule = match opcode.base {
        "setp" | "set" | "selp" | "slct" | "testp" => compare::lookup(opcode),
        "cvt" => convert::lookup(opcode),
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "lop3" | "prmt" | "bfe" | "bfi" | "bfind"
        | "brev" | "clz" | "popc" | "fns" | "bmsk" | "szext" | "mov" | "copysign" => bits::lookup(opcode),
        "sin" | "cos" | "lg2" | "rcp" | "sqrt" | "rsqrt" => float::lookup(opcode),
        _ => by_type(opcode),
    }?;
    opcode.is_done().then_some(rule)
}

/// Instructions that exist for several kinds of numbers.
fn by_type(opcode: &mut Opcode) -> Option<Rule> {
    if matches!(opcode.base, "dp4a" | "dp2a") {
        return integer::lookup_dot(opcode);
    }
    let ty = opcode.ty()?;
    match ty.kind {
        Kind::Signed | Kind::Unsigned | Kind::Bits | Kind::SignedPair | Kind::UnsignedPair => {
            integer::lookup(opcode, ty)
        }
        Kind::Float if ty.bits >= 32 => float::lookup_typed(opcode, ty),
        Kind::Float | Kind::FloatPair | Kind::BFloat | Kind::BFloatPair => half::lookup(opcode, ty),
        Kind::E4M3Pair | Kind::E5M2Pair | Kind::TensorFloat | Kind::Predicate | Kind::Texture => None,
    }
}
