//! `cvt`: between any two number types.
//!
//! Eight-bit values live in 16-bit registers; lowering widens or narrows where a register is wider than its type.

use super::{B32, Rule};
use crate::exec::op::{OpFn, map, with_flag, with_rounding};
use crate::exec::opcode::Opcode;
use crate::math::convert::{double_to_int, float_to_int, int_to_double, int_to_odd};
use crate::math::float::{self, Mode, NEAREST, canonical, flush, saturate, saturate_f64};
use crate::math::half::{self, BF16, F16, Half};
use crate::ptx::{Kind, ScalarType};

/// The modifiers of a `cvt`.
struct Flags {
    /// `.rn` and so on.
    round: Option<Mode>,
    /// `.rni` and so on.
    integral: Option<Mode>,
    ftz: bool,
    sat: bool,
    relu: bool,
    away: bool,
}

pub(super) fn lookup(opcode: &mut Opcode) -> Option<Rule> {
    let src = opcode.ty()?;
    let dst = opcode.ty()?;
    let is_short = |ty: ScalarType| matches!(ty.kind, Kind::E4M3Pair | Kind::E5M2Pair);
    if is_short(src) || is_short(dst) {
        return super::eight_bits::convert(opcode, src, dst);
    }
    let flags = Flags {
        round: opcode.rounding(),
        integral: opcode.take(|word| match word {
            "rni" => Some(NEAREST),
            "rzi" => Some(float::ZERO),
            "rmi" => Some(float::DOWN),
            "rpi" => Some(float::UP),
            _ => None,
        }),
        ftz: opcode.flag("ftz"),
        sat: opcode.flag("sat"),
        relu: opcode.flag("relu"),
        away: opcode.flag("rna"),
    };
    if matches!(dst.kind, Kind::FloatPair | Kind::BFloatPair) {
        return pack(dst, src, &flags);
    }
    let is_int = |ty: ScalarType| matches!(ty.kind, Kind::Signed | Kind::Unsigned);
    let run = match (is_int(src), is_int(dst)) {
        (true, true) => int_to_int(src, dst, flags.sat),
        (true, false) => int_to_float(src, dst, &flags),
        (false, true) => float_to_integer(src, dst, &flags),
        (false, false) => float_to_float(src, dst, &flags),
    }?;
    Some(Rule::new(run, dst, &[src]))
}

/// Evaluates an expression with `T` as a number's Rust type and `R` as the type of the register that holds it.
macro_rules! with_stored {
    ($ty:expr, $t:ident, $r:ident => $e:expr) => {
        match ($ty.kind, $ty.bits) {
            (Kind::Signed, 8) => {
                type $t = i8;
                type $r = u16;
                $e
            }
            (Kind::Signed, 16) => {
                type $t = i16;
                type $r = u16;
                $e
            }
            (Kind::Signed, 32) => {
                type $t = i32;
                type $r = u32;
                $e
            }
            (Kind::Signed, 64) => {
                type $t = i64;
                type $r = u64;
                $e
            }
            (Kind::Unsigned, 8) => {
                type $t = u8;
                type $r = u16;
                $e
            }
            (Kind::Unsigned, 16) => {
                type $t = u16;
                type $r = u16;
                $e
            }
            (Kind::Unsigned, 32) => {
                type $t = u32;
                type $r = u32;
                $e
            }
            (Kind::Unsigned, 64) => {
                type $t = u64;
                type $r = u64;
                $e
            }
            _ => return None,
        }
    };
}

fn int_to_int(src: ScalarType, dst: ScalarType, sat: bool) -> Option<OpFn> {
    Some(with_stored!(src, S, SR => with_stored!(dst, D, DR => {
        if sat {
            map!(|a: SR| -> DR { i128::from(a as S).clamp(i128::from(D::MIN), i128::from(D::MAX)) as D as DR })
        } else {
            // The value extends to the destination by its source's sign, the register by the destination's.
            map!(|a: SR| -> DR { a as S as D as DR })
        }
    })))
}

fn int_to_float(src: ScalarType, dst: ScalarType, flags: &Flags) -> Option<OpFn> {
    let mode = flags.round?;
    let sat = flags.sat;
    Some(with_stored!(src, S, SR => with_rounding!(mode, M => match (dst.kind, dst.bits) {
        (Kind::Float, 32) => with_flag!(sat, SAT => map!(|a: SR| -> f32 {
            let value = if M == NEAREST {
                a as S as f32
            } else {
                float::round_to_f32::<M>(int_to_odd(i128::from(a as S)))
            };
            if SAT { saturate(value) } else { value }
        })),
        (Kind::Float, 64) => with_flag!(sat, SAT => map!(|a: SR| -> f64 {
            let value = int_to_double::<M>(i128::from(a as S));
            if SAT { saturate_f64(value) } else { value }
        })),
        (Kind::Float, 16) if !sat => {
            map!(|a: SR| -> u16 { half::round::<F16, M>(int_to_odd(i128::from(a as S))) })
        }
        (Kind::BFloat, 16) if !sat => {
            map!(|a: SR| -> u16 { half::round::<BF16, M>(int_to_odd(i128::from(a as S))) })
        }
        _ => return None,
    })))
}

fn float_to_integer(src: ScalarType, dst: ScalarType, flags: &Flags) -> Option<OpFn> {
    // .sat changes nothing: these conversions clamp anyway.
    let mode = flags.integral?;
    let ftz = flags.ftz;
    Some(with_stored!(dst, D, DR => with_rounding!(mode, M => match (src.kind, src.bits) {
        (Kind::Float, 32) => with_flag!(ftz, FTZ => {
            map!(|a: f32| -> DR { float_to_int::<D, M, FTZ>(a) as DR })
        }),
        (Kind::Float, 64) => map!(|a: f64| -> DR { double_to_int::<D, M>(a) as DR }),
        (Kind::Float, 16) => map!(|a: u16| -> DR { float_to_int::<D, M, false>(F16::widen(a)) as DR }),
        (Kind::BFloat, 16) => map!(|a: u16| -> DR { float_to_int::<D, M, false>(BF16::widen(a)) as DR }),
        _ => return None,
    })))
}

fn float_to_float(src: ScalarType, dst: ScalarType, flags: &Flags) -> Option<OpFn> {
    let (ftz, sat) = (flags.ftz, flags.sat);
    if dst.kind == Kind::TensorFloat {
        let relu = flags.relu;
        let even = flags.round == Some(NEAREST);
        if !even && !flags.away || src != (ScalarType { kind: Kind::Float, bits: 32 }) {
            return None;
        }
        return Some(with_flag!(even, EVEN => with_flag!(relu, RELU => map!(|a: f32| -> u32 {
            half::tensor_float::<EVEN>(if RELU && a < 0.0 { 0.0 } else { a })
        }))));
    }
    match ((src.kind, src.bits), (dst.kind, dst.bits)) {
        ((Kind::Float, 32), (Kind::Float, 32)) => {
            let mode = flags.integral;
            let round = mode.is_some();
            let mode = mode.unwrap_or(NEAREST);
            Some(with_rounding!(mode, M => with_flag!(round, ROUND => with_flag!(ftz, FTZ => with_flag!(sat, SAT => {
                map!(|a: f32| -> f32 {
                    let a = flush::<FTZ>(a);
                    let a = if ROUND { float::integral::<M>(a) } else { a };
                    if SAT { saturate(a) } else { canonical(a) }
                })
            })))))
        }
        ((Kind::Float, 64), (Kind::Float, 64)) => {
            let mode = flags.integral.unwrap_or(NEAREST);
            let round = flags.integral.is_some();
            Some(with_rounding!(mode, M => with_flag!(round, ROUND => with_flag!(sat, SAT => map!(|a: f64| -> f64 {
                let a = if ROUND { float::integral_f64::<M>(a) } else { a };
                if SAT { saturate_f64(a) } else { a }
            })))))
        }
        ((Kind::Float, 32), (Kind::Float, 64)) => Some(with_flag!(ftz, FTZ => with_flag!(sat, SAT => {
            map!(|a: f32| -> f64 {
                let a = f64::from(flush::<FTZ>(a));
                if SAT { saturate_f64(a) } else { a }
            })
        }))),
        ((Kind::Float, 64), (Kind::Float, 32)) => {
            let mode = flags.round?;
            Some(with_rounding!(mode, M => with_flag!(ftz, FTZ => with_flag!(sat, SAT => map!(|a: f64| -> f32 {
                float::finish::<FTZ, SAT>(float::round_to_f32::<M>(a))
            })))))
        }
        ((_, 16), _) => from_half(src, dst, flags),
        (_, (_, 16)) => to_half(src, dst, flags),
        _ => None,
    }
}

fn from_half(src: ScalarType, dst: ScalarType, flags: &Flags) -> Option<OpFn> {
    let (ftz, sat) = (flags.ftz, flags.sat);
    match ((src.kind, src.bits), (dst.kind, dst.bits)) {
        ((Kind::Float, 16), (Kind::Float, 32)) => Some(with_flag!(ftz, FTZ => with_flag!(sat, SAT => {
            map!(|a: u16| -> f32 { float::finish::<FTZ, SAT>(F16::widen(a)) })
        }))),
        ((Kind::BFloat, 16), (Kind::Float, 32)) => Some(with_flag!(ftz, FTZ => with_flag!(sat, SAT => {
            map!(|a: u16| -> f32 { float::finish::<FTZ, SAT>(BF16::widen(a)) })
        }))),
        ((Kind::Float, 16), (Kind::Float, 64)) => Some(map!(|a: u16| -> f64 { f64::from(F16::widen(a)) })),
        ((Kind::BFloat, 16), (Kind::Float, 64)) => Some(map!(|a: u16| -> f64 { f64::from(BF16::widen(a)) })),
        ((Kind::Float, 16), (Kind::Float, 16)) => integral_half::<F16>(flags),
        ((Kind::BFloat, 16), (Kind::BFloat, 16)) => integral_half::<BF16>(flags),
        _ => None,
    }
}

/// Rounds a 16-bit float to an integral value, or saturates it.
fn integral_half<H: Half>(flags: &Flags) -> Option<OpFn> {
    let mode = flags.integral.unwrap_or(NEAREST);
    let round = flags.integral.is_some();
    let sat = flags.sat;
    let brain = H::FRACTION == BF16::FRACTION;
    Some(with_flag!(brain, BRAIN => with_rounding!(mode, M => with_flag!(round, ROUND => with_flag!(sat, SAT => {
        map!(|a: u16| -> u16 {
            let wide = if BRAIN { BF16::widen(a) } else { F16::widen(a) };
            let wide = if ROUND { float::integral::<M>(wide) } else { wide };
            let wide = if SAT { saturate(wide) } else { wide };
            if BRAIN { half::narrow::<BF16>(wide) } else { half::narrow::<F16>(wide) }
        })
    })))))
}

/// An f32 to a 16-bit float.
#[inline(always)]
fn shorten<H: Half, const M: Mode, const FTZ: bool, const SAT: bool, const RELU: bool>(a: f32) -> u16 {
    let a = flush::<FTZ>(a);
    let a = if SAT { saturate(a) } else { a };
    let bits = if M == NEAREST { half::narrow::<H>(a) } else { half::round::<H, M>(f64::from(a)) };
    if RELU { half::relu::<H>(bits) } else { bits }
}

fn to_half(src: ScalarType, dst: ScalarType, flags: &Flags) -> Option<OpFn> {
    let mode = flags.round?;
    let (ftz, sat, relu) = (flags.ftz, flags.sat, flags.relu);
    let brain = dst.kind == Kind::BFloat;
    match (src.kind, src.bits) {
        (Kind::Float, 32) => Some(with_rounding!(mode, M => with_flag!(ftz, FTZ => with_flag!(relu, RELU => {
            with_flag!(sat, SAT => if brain {
                map!(|a: f32| -> u16 { shorten::<BF16, M, FTZ, SAT, RELU>(a) })
            } else {
                map!(|a: f32| -> u16 { shorten::<F16, M, FTZ, SAT, RELU>(a) })
            })
        })))),
        (Kind::Float, 64) if !sat && !relu => Some(with_rounding!(mode, M => if brain {
            map!(|a: f64| -> u16 { half::round::<BF16, M>(a) })
        } else {
            map!(|a: f64| -> u16 { half::round::<F16, M>(a) })
        })),
        _ => None,
    }
}

/// `cvt.rn.f16x2.f32 d, a, b`: a in the upper half.
fn pack(dst: ScalarType, src: ScalarType, flags: &Flags) -> Option<Rule> {
    let mode = flags.round?;
    let relu = flags.relu;
    let f32_type = ScalarType { kind: Kind::Float, bits: 32 };
    if src != f32_type || !matches!(mode, NEAREST | float::ZERO) || flags.sat {
        return None;
    }
    let brain = dst.kind == Kind::BFloatPair;
    let run = with_rounding!(mode, M => with_flag!(relu, RELU => if brain {
        map!(|a: f32, b: f32| -> u32 {
            u32::from(shorten::<BF16, M, false, false, RELU>(a)) << 16
                | u32::from(shorten::<BF16, M, false, false, RELU>(b))
        })
    } else {
        map!(|a: f32, b: f32| -> u32 {
            u32::from(shorten::<F16, M, false, false, RELU>(a)) << 16
                | u32::from(shorten::<F16, M, false, false, RELU>(b))
        })
    }));
    Some(Rule::new(run, B32, &[f32_type, f32_type]))
}
