//! Arithmetic with the carry flag: 32-bit and 64-bit pieces of longer numbers.

use super::body::Body;
use super::draft::Reg;
use super::problem::{Problem, UNKNOWN, expect, finish};
use crate::exec::op::{OpFn, map};
use crate::exec::opcode::Opcode;
use crate::ptx::{Kind, Operand, ScalarType};

/// The sum or difference, and the carry out of it, for 32 or 64 bits.
macro_rules! operations {
    ($t:ident, $subtract:expr) => {
        if $subtract {
            (
                map!(|a: $t, b: $t, c: bool| -> $t { a.wrapping_sub(b).wrapping_sub($t::from(c)) }),
                map!(|a: $t, b: $t, c: bool| -> bool {
                    let (first, over) = a.overflowing_sub(b);
                    over | first.overflowing_sub($t::from(c)).1
                }),
            )
        } else {
            (
                map!(|a: $t, b: $t, c: bool| -> $t { a.wrapping_add(b).wrapping_add($t::from(c)) }),
                map!(|a: $t, b: $t, c: bool| -> bool {
                    let (first, over) = a.overflowing_add(b);
                    over | first.overflowing_add($t::from(c)).1
                }),
            )
        }
    };
}

/// `add.cc`, `addc{.cc}`, `sub.cc`, `subc{.cc}`, `mad{c}.{lo,hi}{.cc}`.
pub fn lower<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let sets = opcode.flag("cc");
    let takes = opcode.base.ends_with('c');
    let multiply = opcode.base.starts_with("mad");
    let high = multiply && opcode.one_of(&["lo", "hi"]).ok_or(UNKNOWN)? == "hi";
    let ty = opcode.ty().ok_or(UNKNOWN)?;
    finish(opcode)?;
    if !matches!(ty.bits, 32 | 64) || !matches!(ty.kind, Kind::Signed | Kind::Unsigned | Kind::Bits) {
        return Err(UNKNOWN.into());
    }
    expect(operands, if multiply { 4 } else { 3 })?;
    let mut sources = operands[1..].iter().map(|operand| body.source(operand, ty)).collect::<Result<Vec<Reg>, _>>()?;
    if multiply {
        let product = body.temporary(ty.bits);
        body.push(multiplication(ty, high), vec![product], sources[..2].to_vec());
        sources = vec![product, sources[2]];
    }
    let carry = match body.carry {
        Some(carry) => carry,
        None => {
            let carry = body.temporary(1);
            // It lives across instructions, unlike other temporaries.
            body.regs[carry as usize].temporary = false;
            body.carry = Some(carry);
            carry
        }
    };
    let carry_in = if takes { carry } else { body.bits(0, 1) };
    let subtract = opcode.base.starts_with("sub");
    let (value, overflow): (OpFn, OpFn) =
        if ty.bits == 32 { operations!(u32, subtract) } else { operations!(u64, subtract) };
    sources.push(carry_in);
    let carry_out = body.temporary(1);
    if sets {
        body.push(overflow, vec![carry_out], sources.clone());
    }
    body.store_result(&operands[0], ty, |body, dst| {
        body.push(value, vec![dst], sources);
    })?;
    if sets {
        body.push(map!(|a: bool| -> bool { a }), vec![carry], vec![carry_out]);
    }
    Ok(())
}

fn multiplication(ty: ScalarType, high: bool) -> OpFn {
    match (ty.kind == Kind::Signed, ty.bits, high) {
        (_, 32, false) => map!(|a: u32, b: u32| -> u32 { a.wrapping_mul(b) }),
        (_, _, false) => map!(|a: u64, b: u64| -> u64 { a.wrapping_mul(b) }),
        (true, 32, true) => {
            map!(|a: i32, b: i32| -> i32 { ((i64::from(a) * i64::from(b)) >> 32) as i32 })
        }
        (false, 32, true) => {
            map!(|a: u32, b: u32| -> u32 { ((u64::from(a) * u64::from(b)) >> 32) as u32 })
        }
        (true, _, true) => {
            map!(|a: i64, b: i64| -> i64 { ((i128::from(a) * i128::from(b)) >> 64) as i64 })
        }
        (false, _, true) => {
            map!(|a: u64, b: u64| -> u64 { ((u128::from(a) * u128::from(b)) >> 64) as u64 })
        }
    }
}
