//! f16 and bf16 arithmetic, single and packed.

use super::Rule;
use crate::exec::op::{OpFn, map, with_flag};
use crate::exec::opcode::Opcode;
use crate::math::approx;
use crate::math::half::{self, BF16, F16, Half, pair1, pair2, pair3};
use crate::ptx::{Kind, ScalarType};

/// Evaluates an expression with `H` as the format and `PACKED` as whether there are two in a register.
macro_rules! with_format {
    ($ty:expr, $h:ident, $packed:ident => $e:expr) => {
        match $ty.kind {
            Kind::Float => {
                type $h = F16;
                const $packed: bool = false;
                $e
            }
            Kind::FloatPair => {
                type $h = F16;
                const $packed: bool = true;
                $e
            }
            Kind::BFloat => {
                type $h = BF16;
                const $packed: bool = false;
                $e
            }
            _ => {
                type $h = BF16;
                const $packed: bool = true;
                $e
            }
        }
    };
}

/// Applies an operation on 16-bit patterns to a register of one or of two.
macro_rules! each {
    ($packed:ident, 1, $f:expr) => {
        if $packed { map!(|a: u32| -> u32 { pair1($f, a) }) } else { map!(|a: u16| -> u16 { ($f)(a) }) }
    };
    ($packed:ident, 2, $f:expr) => {
        if $packed {
            map!(|a: u32, b: u32| -> u32 { pair2($f, a, b) })
        } else {
            map!(|a: u16, b: u16| -> u16 { ($f)(a, b) })
        }
    };
    ($packed:ident, 3, $f:expr) => {
        if $packed {
            map!(|a: u32, b: u32, c: u32| -> u32 { pair3($f, a, b, c) })
        } else {
            map!(|a: u16, b: u16, c: u16| -> u16 { ($f)(a, b, c) })
        }
    };
}

pub(super) fn lookup(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    let brain = matches!(ty.kind, Kind::BFloat | Kind::BFloatPair);
    let approx = opcode.flag("approx");
    let ftz = opcode.flag("ftz");
    // Except for ex2, bfloat16 instructions take no .ftz.
    if brain && ftz && opcode.base != "ex2" {
        return None;
    }
    let rule = |run, sources| Some(Rule::uniform(run, ty, sources));
    match opcode.base {
        "ex2" if approx => rule(exponential(ty, ftz)?, 1),
        "tanh" if approx && !ftz => {
            rule(with_format!(ty, H, P => each!(P, 1, |a| half::narrow::<H>(approx::tanh(H::widen(a))))), 1)
        }
        _ if approx => None,
        "add" | "sub" | "mul" => rule(arithmetic(opcode, ty, ftz)?, 2),
        "fma" => rule(fused(opcode, ty, ftz)?, 3),
        "neg" => rule(
            with_flag!(ftz, FTZ => with_format!(ty, H, P => each!(P, 1, |a| {
                let a = half::flush::<FTZ>(a);
                if H::widen(a).is_nan() { half::NAN } else { a ^ 0x8000 }
            }))),
            1,
        ),
        "abs" => rule(
            with_flag!(ftz, FTZ => with_format!(ty, H, P => each!(P, 1, |a| {
                let a = half::flush::<FTZ>(a);
                if H::widen(a).is_nan() { half::NAN } else { a & 0x7fff }
            }))),
            1,
        ),
        "min" | "max" => rule(min_max(opcode, ty, ftz)?, 2),
        _ => None,
    }
}

fn exponential(ty: ScalarType, ftz: bool) -> Option<OpFn> {
    // bfloat16 always flushes here, half precision never does.
    let brain = matches!(ty.kind, Kind::BFloat | Kind::BFloatPair);
    (brain == ftz).then(|| {
        with_format!(ty, H, P => with_flag!(ftz, FTZ => {
            each!(P, 1, |a| half::narrow::<H>(approx::ex2::<FTZ>(H::widen(a))))
        }))
    })
}

fn arithmetic(opcode: &mut Opcode, ty: ScalarType, ftz: bool) -> Option<OpFn> {
    opcode.flag("rn");
    let sat = opcode.flag("sat");
    let base = opcode.base;
    Some(with_format!(ty, H, P => with_flag!(ftz, FTZ => with_flag!(sat, SAT => match base {
        "add" => each!(P, 2, half::add::<H, FTZ, SAT>),
        "sub" => each!(P, 2, half::sub::<H, FTZ, SAT>),
        _ => each!(P, 2, half::mul::<H, FTZ, SAT>),
    }))))
}

fn fused(opcode: &mut Opcode, ty: ScalarType, ftz: bool) -> Option<OpFn> {
    if !opcode.flag("rn") {
        return None;
    }
    let sat = opcode.flag("sat");
    let relu = opcode.flag("relu");
    if sat && relu {
        return None;
    }
    Some(with_format!(ty, H, P => with_flag!(ftz, FTZ => with_flag!(sat, SAT => with_flag!(relu, RELU => {
        each!(P, 3, half::fma::<H, FTZ, SAT, RELU>)
    })))))
}

fn min_max(opcode: &mut Opcode, ty: ScalarType, ftz: bool) -> Option<OpFn> {
    let nan = opcode.flag("NaN");
    let xor_sign = opcode.flag("xorsign") && opcode.flag("abs");
    let min = opcode.base == "min";
    Some(with_format!(ty, H, P => with_flag!(ftz, FTZ => with_flag!(nan, NAN => with_flag!(min, MIN => {
        #[inline(always)]
        fn pick(a: u16, b: u16) -> u16 {
            if MIN { half::min::<H, FTZ, NAN>(a, b) } else { half::max::<H, FTZ, NAN>(a, b) }
        }
        if xor_sign {
            each!(P, 2, |a: u16, b: u16| {
                let chosen = pick(a & 0x7fff, b & 0x7fff);
                if H::widen(chosen).is_nan() { chosen } else { chosen | (a ^ b) & 0x8000 }
            })
        } else {
            each!(P, 2, pick)
        }
    })))))
}
