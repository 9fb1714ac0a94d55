//! Logic, shifts, bit fields and moves.

use super::integer::with_int;
use super::{B32, PRED, Rule};
use crate::exec::op::{OpFn, map, with_flag};
use crate::exec::opcode::Opcode;
use crate::math::integer;
use crate::ptx::{Kind, ScalarType};

pub(super) fn lookup(opcode: &mut Opcode) -> Option<Rule> {
    match opcode.base {
        "shf" => return funnel(opcode),
        "prmt" => return permute(opcode),
        "lop3" => {
            let ty = opcode.ty()?;
            let run = map!(|a: u32, b: u32, c: u32, table: u32| -> u32 { integer::logic3(a, b, c, table) });
            return (ty == B32).then(|| Rule::uniform(run, B32, 4));
        }
        _ => {}
    }
    let ty = opcode.ty()?;
    let bits = ty.bits;
    let same = |run: Option<OpFn>, sources| Some(Rule::uniform(run?, ty, sources));
    // Logic sees patterns, whatever the type.
    let raw = ScalarType::bits(bits);
    match opcode.base {
        "mov" if ty == PRED => same(Some(map!(|a: bool| -> bool { a })), 1),
        "mov" => same(with_int!(raw, I => map!(|a: I| -> I { a })), 1),
        "and" if ty == PRED => same(Some(map!(|a: bool, b: bool| -> bool { a & b })), 2),
        "or" if ty == PRED => same(Some(map!(|a: bool, b: bool| -> bool { a | b })), 2),
        "xor" if ty == PRED => same(Some(map!(|a: bool, b: bool| -> bool { a ^ b })), 2),
        "not" if ty == PRED => same(Some(map!(|a: bool| -> bool { !a })), 1),
        "and" => same(with_int!(raw, I => map!(|a: I, b: I| -> I { a & b })), 2),
        "or" => same(with_int!(raw, I => map!(|a: I, b: I| -> I { a | b })), 2),
        "xor" => same(with_int!(raw, I => map!(|a: I, b: I| -> I { a ^ b })), 2),
        "not" => same(with_int!(raw, I => map!(|a: I| -> I { !a })), 1),
        "cnot" => same(with_int!(raw, I => map!(|a: I| -> I { I::from(a == 0) })), 1),
        "shl" | "shr" => shift(opcode.base, ty),
        "copysign" => copysign(ty),
        "bfe" => extract(ty),
        "bfi" => {
            let run = match bits {
                32 => map!(|a: u32, b: u32, pos: u32, len: u32| -> u32 {
                    integer::insert(u64::from(a), u64::from(b), pos, len, 32) as u32
                }),
                64 => map!(|a: u64, b: u64, pos: u32, len: u32| -> u64 { integer::insert(a, b, pos, len, 64) }),
                _ => return None,
            };
            Some(Rule::new(run, ty, &[ty, ty, B32, B32]))
        }
        "bfind" => find(opcode, ty),
        "brev" => match bits {
            32 => same(Some(map!(|a: u32| -> u32 { a.reverse_bits() })), 1),
            64 => same(Some(map!(|a: u64| -> u64 { a.reverse_bits() })), 1),
            _ => None,
        },
        "clz" => to_count(ty, map!(|a: u32| -> u32 { a.leading_zeros() }), map!(|a: u64| -> u32 { a.leading_zeros() })),
        "popc" => to_count(ty, map!(|a: u32| -> u32 { a.count_ones() }), map!(|a: u64| -> u32 { a.count_ones() })),
        "fns" => {
            let run = map!(|mask: u32, base: u32, n: i32| -> u32 { integer::find_nth_set(mask, base, n) });
            same(Some(run), 3)
        }
        "bmsk" | "szext" => masks(opcode, ty),
        _ => None,
    }
}

/// Shift amounts are 32 bits wide and clamp at the width.
fn shift(base: &str, ty: ScalarType) -> Option<Rule> {
    let run = if base == "shl" {
        let raw = ScalarType::bits(ty.bits);
        with_int!(raw, I => map!(|a: I, n: u32| -> I { if n < I::BITS { a << n } else { 0 } }))
    } else {
        with_int!(ty, I => map!(|a: I, n: u32| -> I { a >> n.min(I::BITS - 1) >> u32::from(n >= I::BITS) }))
    };
    Some(Rule::new(run?, ty, &[ty, B32]))
}

fn copysign(ty: ScalarType) -> Option<Rule> {
    let run = match ty.bits {
        32 => map!(|a: u32, b: u32| -> u32 { b & 0x7fff_ffff | a & 0x8000_0000 }),
        64 => map!(|a: u64, b: u64| -> u64 { b & !(1 << 63) | a & 1 << 63 }),
        _ => return None,
    };
    (ty.kind == Kind::Float).then(|| Rule::uniform(run, ty, 2))
}

fn extract(ty: ScalarType) -> Option<Rule> {
    let run = match (ty.kind, ty.bits) {
        (Kind::Unsigned, 32) => {
            map!(|a: u32, pos: u32, len: u32| -> u32 { integer::extract_unsigned(u64::from(a), pos, len, 32) as u32 })
        }
        (Kind::Unsigned, 64) => {
            map!(|a: u64, pos: u32, len: u32| -> u64 { integer::extract_unsigned(a, pos, len, 64) })
        }
        (Kind::Signed, 32) => {
            map!(|a: i32, pos: u32, len: u32| -> i32 { integer::extract_signed(i64::from(a), pos, len, 32) as i32 })
        }
        (Kind::Signed, 64) => {
            map!(|a: i64, pos: u32, len: u32| -> i64 { integer::extract_signed(a, pos, len, 64) })
        }
        _ => return None,
    };
    Some(Rule::new(run, ty, &[ty, B32, B32]))
}

fn find(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    let amount = opcode.flag("shiftamt");
    let run = with_flag!(amount, AMOUNT => match (ty.kind, ty.bits) {
        (Kind::Unsigned, 32) => map!(|a: u32| -> u32 { integer::find_leading(u64::from(a), 32, AMOUNT) }),
        (Kind::Unsigned, 64) => map!(|a: u64| -> u32 { integer::find_leading(a, 64, AMOUNT) }),
        (Kind::Signed, 32) => {
            map!(|a: i32| -> u32 { integer::find_leading(u64::from((a ^ a >> 31) as u32), 32, AMOUNT) })
        }
        (Kind::Signed, 64) => map!(|a: i64| -> u32 { integer::find_leading((a ^ a >> 63) as u64, 64, AMOUNT) }),
        _ => return None,
    });
    Some(Rule::new(run, B32, &[ty]))
}

fn to_count(ty: ScalarType, narrow: OpFn, wide: OpFn) -> Option<Rule> {
    match ty.bits {
        32 => Some(Rule::new(narrow, B32, &[ty])),
        64 => Some(Rule::new(wide, B32, &[ty])),
        _ => None,
    }
}

/// `bmsk` makes a mask of a position and a width, `szext` extends a value from a width.
fn masks(opcode: &mut Opcode, ty: ScalarType) -> Option<Rule> {
    let wrap = opcode.one_of(&["clamp", "wrap"])? == "wrap";
    let run = with_flag!(wrap, WRAP => match (opcode.base, ty.kind) {
        ("bmsk", Kind::Bits) => map!(|a: u32, b: u32| -> u32 {
            let (pos, len) = if WRAP { (a & 31, b & 31) } else { (a, b) };
            let mask = if len >= 32 { u32::MAX } else { (1 << len) - 1 };
            if pos >= 32 { 0 } else { mask << pos }
        }),
        ("szext", Kind::Signed) => map!(|a: i32, n: u32| -> i32 {
            let n = if WRAP { n & 31 } else { n };
            if n == 0 { 0 } else if n >= 32 { a } else { a << (32 - n) >> (32 - n) }
        }),
        ("szext", Kind::Unsigned) => map!(|a: u32, n: u32| -> u32 {
            let n = if WRAP { n & 31 } else { n };
            if n >= 32 { a } else { a & ((1 << n) - 1) }
        }),
        _ => return None,
    });
    (ty.bits == 32).then(|| Rule::new(run, ty, &[ty, B32]))
}

/// `shf`: 64 bits shifted, of which 32 are kept.
fn funnel(opcode: &mut Opcode) -> Option<Rule> {
    let left = opcode.one_of(&["l", "r"])? == "l";
    let clamp = opcode.one_of(&["clamp", "wrap"])? == "clamp";
    let run = with_flag!(left, LEFT => with_flag!(clamp, CLAMP => map!(|low: u32, high: u32, n: u32| -> u32 {
        let n = if CLAMP { n.min(32) } else { n & 31 };
        let both = u64::from(high) << 32 | u64::from(low);
        if LEFT { (both << n >> 32) as u32 } else { (both >> n) as u32 }
    })));
    (opcode.ty()? == B32).then(|| Rule::uniform(run, B32, 3))
}

fn permute(opcode: &mut Opcode) -> Option<Rule> {
    let modes = ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
    let mode = opcode.one_of(&modes);
    macro_rules! mode {
        ($mode:literal) => {
            map!(|a: u32, b: u32, c: u32| -> u32 { integer::permute(a, b, integer::permute_selector($mode, c)) })
        };
    }
    let run = match mode {
        None => map!(|a: u32, b: u32, c: u32| -> u32 { integer::permute(a, b, c) }),
        Some("f4e") => mode!(0),
        Some("b4e") => mode!(1),
        Some("rc8") => mode!(2),
        Some("ecl") => mode!(3),
        Some("ecr") => mode!(4),
        Some(_) => mode!(5),
    };
    (opcode.ty()? == B32).then(|| Rule::uniform(run, B32, 3))
}
