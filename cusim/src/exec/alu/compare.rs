//! Comparisons and selections.
#![allow(
    clippy::neg_cmp_op_on_partial_ord,
    clippy::double_comparisons,
    clippy::nonminimal_bool,
    reason = "comparisons and their negations differ for NaN"
)]

use super::integer::with_int;
use super::{B32, PRED, Rule};
use crate::exec::op::{OpFn, map, with_flag};
use crate::exec::opcode::Opcode;
use crate::math::float::flush;
use crate::math::half::{self, BF16, F16, Half};
use crate::ptx::{Kind, ScalarType};

/// The comparisons by name: the ordered ones, those that are true for NaN, and the unsigned integers' own.
const COMPARISONS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];

pub(super) fn lookup(opcode: &mut Opcode) -> Option<Rule> {
    match opcode.base {
        "setp" => {
            let comparison = opcode.one_of(&COMPARISONS)?;
            let ftz = opcode.flag("ftz");
            let ty = opcode.ty()?;
            Some(Rule::new(condition(comparison, ty, ftz)?, PRED, &[ty, ty]))
        }
        "selp" => {
            let ty = opcode.ty()?;
            let raw = ScalarType::bits(ty.bits);
            let run = with_int!(raw, I => map!(|a: I, b: I, p: bool| -> I { if p { a } else { b } }))?;
            Some(Rule::new(run, ty, &[ty, ty, PRED]))
        }
        "slct" => select_by_sign(opcode),
        "testp" => test(opcode),
        _ => None,
    }
}

/// Compares f32 values; 16-bit floats are widened first, which changes no comparison.
macro_rules! float_condition {
    ($name:expr, $t:ty, |$x:ident| $wide:expr) => {{
        macro_rules! test {
            (|$a:ident, $b:ident| $e:expr) => {
                map!(|a: $t, b: $t| -> bool {
                    let $a = {
                        let $x = a;
                        $wide
                    };
                    let $b = {
                        let $x = b;
                        $wide
                    };
                    $e
                })
            };
        }
        Some(match $name {
            "eq" => test!(|a, b| a == b),
            "ne" => test!(|a, b| a < b || a > b),
            "lt" => test!(|a, b| a < b),
            "le" => test!(|a, b| a <= b),
            "gt" => test!(|a, b| a > b),
            "ge" => test!(|a, b| a >= b),
            "equ" => test!(|a, b| !(a < b || a > b)),
            "neu" => test!(|a, b| a != b),
            "ltu" => test!(|a, b| !(a >= b)),
            "leu" => test!(|a, b| !(a > b)),
            "gtu" => test!(|a, b| !(a <= b)),
            "geu" => test!(|a, b| !(a < b)),
            "num" => test!(|a, b| !a.is_nan() && !b.is_nan()),
            "nan" => test!(|a, b| a.is_nan() || b.is_nan()),
            _ => return None,
        })
    }};
}

/// The operation that compares two values of a type.
pub(crate) fn condition(name: &str, ty: ScalarType, ftz: bool) -> Option<OpFn> {
    match (ty.kind, ty.bits) {
        (Kind::Float, 32) => {
            with_flag!(ftz, FTZ => float_condition!(name, f32, |x| flush::<FTZ>(x)))
        }
        (Kind::Float, 64) if !ftz => float_condition!(name, f64, |x| x),
        (Kind::Float, 16) => {
            with_flag!(ftz, FTZ => float_condition!(name, u16, |x| F16::widen(half::flush::<FTZ>(x))))
        }
        (Kind::BFloat, 16) if !ftz => float_condition!(name, u16, |x| BF16::widen(x)),
        (Kind::Signed | Kind::Unsigned | Kind::Bits, _) if !ftz => integer_condition(name, ty),
        _ => None,
    }
}

fn integer_condition(name: &str, ty: ScalarType) -> Option<OpFn> {
    let unsigned = ScalarType { kind: Kind::Unsigned, ..ty };
    let name = match (name, ty.kind) {
        ("eq" | "ne", _) => name,
        ("lt" | "le" | "gt" | "ge", Kind::Signed | Kind::Unsigned) => name,
        ("lo", Kind::Unsigned) => "lt",
        ("ls", Kind::Unsigned) => "le",
        ("hi", Kind::Unsigned) => "gt",
        ("hs", Kind::Unsigned) => "ge",
        _ => return None,
    };
    let ty = if ty.kind == Kind::Bits { unsigned } else { ty };
    match name {
        "eq" => with_int!(unsigned, I => map!(|a: I, b: I| -> bool { a == b })),
        "ne" => with_int!(unsigned, I => map!(|a: I, b: I| -> bool { a != b })),
        "lt" => with_int!(ty, I => map!(|a: I, b: I| -> bool { a < b })),
        "le" => with_int!(ty, I => map!(|a: I, b: I| -> bool { a <= b })),
        "gt" => with_int!(ty, I => map!(|a: I, b: I| -> bool { a > b })),
        _ => with_int!(ty, I => map!(|a: I, b: I| -> bool { a >= b })),
    }
}

/// Compares the low (`HIGH` false) or high halves of packed 16-bit floats.
pub(crate) fn half_condition(name: &str, ty: ScalarType, ftz: bool, high: bool) -> Option<OpFn> {
    with_flag!(high, HIGH => match ty.kind {
        Kind::FloatPair => with_flag!(ftz, FTZ => {
            float_condition!(name, u32, |x| F16::widen(half::flush::<FTZ>((x >> (16 * u32::from(HIGH))) as u16)))
        }),
        Kind::BFloatPair if !ftz => {
            float_condition!(name, u32, |x| BF16::widen((x >> (16 * u32::from(HIGH))) as u16))
        }
        _ => None,
    })
}

/// `slct.dtype.ctype d, a, b, c`: a where c >= 0.
fn select_by_sign(opcode: &mut Opcode) -> Option<Rule> {
    let by = opcode.ty()?;
    let ty = opcode.ty()?;
    let ftz = opcode.flag("ftz");
    let raw = ScalarType::bits(ty.bits);
    let run = match (by.kind, by.bits) {
        (Kind::Signed, 32) if !ftz => {
            with_int!(raw, I => map!(|a: I, b: I, c: i32| -> I { if c >= 0 { a } else { b } }))
        }
        (Kind::Float, 32) => with_flag!(ftz, FTZ => {
            with_int!(raw, I => map!(|a: I, b: I, c: f32| -> I { if flush::<FTZ>(c) >= 0.0 { a } else { b } }))
        }),
        _ => None,
    };
    Some(Rule::new(run?, ty, &[ty, ty, by]))
}

fn test(opcode: &mut Opcode) -> Option<Rule> {
    let property = opcode.one_of(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"])?;
    let ty = opcode.ty()?;
    macro_rules! tests {
        ($t:ty) => {
            match property {
                "finite" => map!(|a: $t| -> bool { a.is_finite() }),
                "infinite" => map!(|a: $t| -> bool { a.is_infinite() }),
                "number" => map!(|a: $t| -> bool { !a.is_nan() }),
                "notanumber" => map!(|a: $t| -> bool { a.is_nan() }),
                // Zero counts as normal here.
                "normal" => map!(|a: $t| -> bool { a.is_normal() || a == 0.0 }),
                _ => map!(|a: $t| -> bool { a.is_subnormal() }),
            }
        };
    }
    let run = match (ty.kind, ty.bits) {
        (Kind::Float, 32) => tests!(f32),
        (Kind::Float, 64) => tests!(f64),
        _ => return None,
    };
    Some(Rule::new(run, PRED, &[ty]))
}

/// All ones or zero by a predicate, and 1.0 or 0.0: the results of `set`.
pub(crate) fn spread(ty: ScalarType) -> Option<OpFn> {
    match (ty.kind, ty.bits) {
        (Kind::Unsigned | Kind::Signed, 32) => Some(map!(|p: bool| -> u32 { if p { u32::MAX } else { 0 } })),
        (Kind::Float, 32) => Some(map!(|p: bool| -> f32 { if p { 1.0 } else { 0.0 } })),
        (Kind::Unsigned | Kind::Signed, 16) => Some(map!(|p: bool| -> u16 { if p { u16::MAX } else { 0 } })),
        (Kind::Float, 16) => Some(map!(|p: bool| -> u16 { if p { 0x3c00 } else { 0 } })),
        (Kind::BFloat, 16) => Some(map!(|p: bool| -> u16 { if p { 0x3f80 } else { 0 } })),
        _ => None,
    }
}

/// The results of `set` for packed halves, from two predicates.
pub(crate) fn spread_pair(ty: ScalarType) -> Option<OpFn> {
    macro_rules! pack {
        ($one:literal) => {
            map!(|low: bool, high: bool| -> u32 { (if low { $one } else { 0 }) | (if high { $one << 16 } else { 0 }) })
        };
    }
    match ty.kind {
        Kind::FloatPair => Some(pack!(0x3c00)),
        Kind::BFloatPair => Some(pack!(0x3f80)),
        _ if ty.bits == B32.bits => Some(pack!(0xffff)),
        _ => None,
    }
}
