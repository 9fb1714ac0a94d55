//! Integer arithmetic.

use super::{B32, Rule};
use crate::exec::op::{OpFn, map, with_flag};
use crate::exec::opcode::Opcode;
use crate::math::{half, integer};
use crate::ptx::{Kind, ScalarType};

/// Evaluates an expression with `I` as the Rust type of an integer type; patterns are processed as unsigned.
macro_rules! with_int {
    ($ty:expr, $i:ident => $e:expr) => {
        match ($ty.kind == Kind::Signed, $ty.bits) {
            (true, 16) => {
                type $i = i16;
                Some($e)
            }
            (true, 32) => {
                type $i = i32;
                Some($e)
            }
            (true, 64) => {
                type $i = i64;
                Some($e)
            }
            (false, 16) => {
                type $i = u16;
                Some($e)
            }
            (false, 32) => {
                type $i = u32;
                Some($e)
            }
            (false, 64) => {
                type $i = u64;
                Some($e)
            }
            _ => None,
        }
    };
}
pub(super) use with_int;

/// Integers with a type twice as wide.
trait Widening: Copy {
    type Wide;
    fn widening_mul(self, other: Self) -> Self::Wide;
    fn high(wide: Self::Wide) -> Self;
}

macro_rules! widening {
    ($($t:ident $wide:ident)*) => {$(
        impl Widening for $t {
            type Wide = $wide;
            #[inline(always)]
            fn widening_mul(self, other: Self) -> $wide {
                $wide::from(self) * $wide::from(other)
            }
            #[inline(always)]
            fn high(wide: $wide) -> Self {
                (wide >> $t::BITS) as $t
            }
        }
    )*};
}
widening!(u16 u32 i16 i32 u32 u64 i32 i64 u64 u128 i64 i128);

/// Division where dividing by zero gives all ones and the dividend as the remainder.
trait Division: Copy {
    fn quotient(self, other: Self) -> Self;
    fn remainder(self, other: Self) -> Self;
}

macro_rules! division {
    ($($t:ident)*) => {$(
        impl Division for $t {
            #[inline(always)]
            fn quotient(self, other: Self) -> Self {
                if other == 0 { !0 } else { self.wrapping_div(other) }
            }
            #[inline(always)]
            fn remainder(self, other: Self) -> Self {
                if other == 0 { self } else { self.wrapping_rem(other) }
            }
        }
    )*};
}
division!(u16 i16 u32 i32 u64 i64);

/// Double width of a type, for `mul.wide`.
fn doubled(ty: ScalarType) -> ScalarType {
    ScalarType { bits: ty.bits * 2, ..ty }
}

pub(super) fn lookup(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    if matches!(ty.kind, Kind::SignedPair | Kind::UnsignedPair) {
        return lookup_pair(opcode, ty);
    }
    let binary = |run: Option<OpFn>| Some(Rule::uniform(run?, ty, 2));
    let base = opcode.base;
    match base {
        "add" | "sub" if opcode.flag("sat") => {
            if ty.kind != Kind::Signed || ty.bits != 32 {
                return None;
            }
            binary(Some(if opcode.base == "add" {
                map!(|a: i32, b: i32| -> i32 { a.saturating_add(b) })
            } else {
                map!(|a: i32, b: i32| -> i32 { a.saturating_sub(b) })
            }))
        }
        "add" => binary(with_int!(ty, I => map!(|a: I, b: I| -> I { a.wrapping_add(b) }))),
        "sub" => binary(with_int!(ty, I => map!(|a: I, b: I| -> I { a.wrapping_sub(b) }))),
        "mul" | "mad" => multiply(opcode, ty),
        "mul24" | "mad24" => multiply24(opcode, ty),
        "div" => binary(with_int!(ty, I => map!(|a: I, b: I| -> I { a.quotient(b) }))),
        "rem" => binary(with_int!(ty, I => map!(|a: I, b: I| -> I { a.remainder(b) }))),
        "min" => {
            let relu = opcode.flag("relu");
            binary(if relu { relu_min_max(ty, true) } else { with_int!(ty, I => map!(|a: I, b: I| -> I { a.min(b) })) })
        }
        "max" => {
            let relu = opcode.flag("relu");
            binary(if relu {
                relu_min_max(ty, false)
            } else {
                with_int!(ty, I => map!(|a: I, b: I| -> I { a.max(b) }))
            })
        }
        "sad" => {
            let run = with_int!(ty, I => map!(|a: I, b: I, c: I| -> I { c.wrapping_add(a.abs_diff(b) as I) }))?;
            Some(Rule::uniform(run, ty, 3))
        }
        "abs" if ty.kind == Kind::Signed => {
            let run = match ty.bits {
                16 => map!(|a: i16| -> i16 { a.wrapping_abs() }),
                32 => map!(|a: i32| -> i32 { a.wrapping_abs() }),
                64 => map!(|a: i64| -> i64 { a.wrapping_abs() }),
                _ => return None,
            };
            Some(Rule::uniform(run, ty, 1))
        }
        "neg" if ty.kind == Kind::Signed => {
            let run = with_int!(ty, I => map!(|a: I| -> I { a.wrapping_neg() }))?;
            Some(Rule::uniform(run, ty, 1))
        }
        _ => None,
    }
}

fn relu_min_max(ty: ScalarType, min: bool) -> Option<OpFn> {
    (ty.kind == Kind::Signed && ty.bits == 32).then(|| {
        if min {
            map!(|a: i32, b: i32| -> i32 { a.min(b).max(0) })
        } else {
            map!(|a: i32, b: i32| -> i32 { a.max(b).max(0) })
        }
    })
}

/// `mul` and `mad` with `.lo`, `.hi`, `.wide`.
fn multiply(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    let mad = opcode.base == "mad";
    match opcode.one_of(&["lo", "hi", "wide"])? {
        "lo" => {
            let run = if mad {
                with_int!(ty, I => map!(|a: I, b: I, c: I| -> I { a.wrapping_mul(b).wrapping_add(c) }))
            } else {
                with_int!(ty, I => map!(|a: I, b: I| -> I { a.wrapping_mul(b) }))
            };
            Some(Rule::uniform(run?, ty, 2 + usize::from(mad)))
        }
        "hi" if mad && opcode.flag("sat") => {
            let signed = ty.kind == Kind::Signed && ty.bits == 32;
            let run =
                map!(|a: i32, b: i32, c: i32| -> i32 { i32::high(Widening::widening_mul(a, b)).saturating_add(c) });
            signed.then(|| Rule::uniform(run, ty, 3))
        }
        "hi" => {
            let run = if mad {
                with_int!(ty, I => map!(|a: I, b: I, c: I| -> I { I::high(Widening::widening_mul(a, b)).wrapping_add(c) }))
            } else {
                with_int!(ty, I => map!(|a: I, b: I| -> I { I::high(Widening::widening_mul(a, b)) }))
            };
            Some(Rule::uniform(run?, ty, 2 + usize::from(mad)))
        }
        _ => {
            let signed = ty.kind == Kind::Signed;
            let run = match (mad, signed, ty.bits) {
                (false, true, 16) => map!(|a: i16, b: i16| -> i32 { i32::from(a) * i32::from(b) }),
                (false, false, 16) => map!(|a: u16, b: u16| -> u32 { u32::from(a) * u32::from(b) }),
                (false, true, 32) => map!(|a: i32, b: i32| -> i64 { i64::from(a) * i64::from(b) }),
                (false, false, 32) => map!(|a: u32, b: u32| -> u64 { u64::from(a) * u64::from(b) }),
                (true, true, 16) => {
                    map!(|a: i16, b: i16, c: i32| -> i32 { (i32::from(a) * i32::from(b)).wrapping_add(c) })
                }
                (true, false, 16) => {
                    map!(|a: u16, b: u16, c: u32| -> u32 { (u32::from(a) * u32::from(b)).wrapping_add(c) })
                }
                (true, true, 32) => {
                    map!(|a: i32, b: i32, c: i64| -> i64 { (i64::from(a) * i64::from(b)).wrapping_add(c) })
                }
                (true, false, 32) => {
                    map!(|a: u32, b: u32, c: u64| -> u64 { (u64::from(a) * u64::from(b)).wrapping_add(c) })
                }
                _ => return None,
            };
            let wide = doubled(ty);
            Some(Rule::new(run, wide, &[ty, ty, wide][..2 + usize::from(mad)]))
        }
    }
}

/// `mul24` and `mad24`: the product of the operands' low 24 bits.
fn multiply24(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    if ty.bits != 32 {
        return None;
    }
    let mad = opcode.base == "mad24";
    let high = opcode.one_of(&["hi", "lo"])? == "hi";
    let signed = ty.kind == Kind::Signed;
    let run = with_flag!(high, HIGH => with_flag!(signed, SIGNED => {
        #[inline(always)]
        fn product(a: u32, b: u32) -> u32 {
            let wide = if SIGNED {
                (i64::from((a << 8) as i32 >> 8) * i64::from((b << 8) as i32 >> 8)) as u64
            } else {
                u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
            };
            if HIGH { (wide >> 16) as u32 } else { wide as u32 }
        }
        if mad {
            map!(|a: u32, b: u32, c: u32| -> u32 { product(a, b).wrapping_add(c) })
        } else {
            map!(|a: u32, b: u32| -> u32 { product(a, b) })
        }
    }));
    Some(Rule::uniform(run, ty, 2 + usize::from(mad)))
}

/// Two 16-bit integers in a register.
fn lookup_pair(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    let signed = ty.kind == Kind::SignedPair;
    let relu = opcode.flag("relu");
    let run = match (opcode.base, signed, relu) {
        ("add", _, false) => map!(|a: u32, b: u32| -> u32 { half::pair2(u16::wrapping_add, a, b) }),
        ("min", false, false) => map!(|a: u32, b: u32| -> u32 { half::pair2(u16::min, a, b) }),
        ("max", false, false) => map!(|a: u32, b: u32| -> u32 { half::pair2(u16::max, a, b) }),
        ("min", true, _) => with_flag!(relu, RELU => map!(|a: u32, b: u32| -> u32 {
            let least = if RELU { 0 } else { i16::MIN };
            half::pair2(|a, b| (a as i16).min(b as i16).max(least) as u16, a, b)
        })),
        ("max", true, _) => with_flag!(relu, RELU => map!(|a: u32, b: u32| -> u32 {
            let least = if RELU { 0 } else { i16::MIN };
            half::pair2(|a, b| (a as i16).max(b as i16).max(least) as u16, a, b)
        })),
        _ => return None,
    };
    Some(Rule::uniform(run, ty, 2))
}

/// `dp4a.atype.btype` and `dp2a.mode.atype.btype`.
pub(super) fn lookup_dot(opcode: &mut Opcode) -> Option<Rule> {
    let b = opcode.ty()?;
    let a = opcode.ty()?;
    let valid = |ty: ScalarType| ty.bits == 32 && matches!(ty.kind, Kind::Signed | Kind::Unsigned);
    if !valid(a) || !valid(b) {
        return None;
    }
    let (a_signed, b_signed) = (a.kind == Kind::Signed, b.kind == Kind::Signed);
    let run = if opcode.base == "dp4a" {
        with_flag!(a_signed, A => with_flag!(b_signed, B => {
            map!(|a: u32, b: u32, c: u32| -> u32 { integer::dot4(a, b, c, A, B) })
        }))
    } else {
        let high = opcode.one_of(&["lo", "hi"])? == "hi";
        with_flag!(a_signed, A => with_flag!(b_signed, B => with_flag!(high, HIGH => {
            map!(|a: u32, b: u32, c: u32| -> u32 { integer::dot2(a, b, c, A, B, HIGH) })
        })))
    };
    Some(Rule::uniform(run, B32, 3))
}
