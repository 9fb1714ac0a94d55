//! `mov` in its many forms, and address conversions.

use super::body::{Body, Symbol};
use super::draft::Reg;
use super::problem::{Problem, UNKNOWN, expect, finish};
use crate::exec::alu;
use crate::exec::op::{OpFn, map};
use crate::exec::opcode::Opcode;
use crate::machine::address::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_SIZE};
use crate::ptx::{Operand, ScalarType, Space};

/// Makes an unguarded register written only here another name for a constant; whether that was possible.
pub fn alias<'m>(body: &mut Body<'_, 'm>, target: &Operand<'m>, source: Reg, guarded: bool) -> bool {
    let Operand::Name(name) = target else {
        return false;
    };
    let Some(Symbol::Reg(reg)) = body.lookup(name) else {
        return false;
    };
    let source = resolve(body, source);
    let constant = body.regs[source as usize].constant.is_some();
    let info = &mut body.regs[reg as usize];
    if guarded || body.options.keep_moves || !constant || info.defs != 1 {
        return false;
    }
    let same_width = body.regs[source as usize].bits == body.regs[reg as usize].bits;
    if same_width {
        body.regs[reg as usize].alias = Some(source);
    }
    same_width
}

/// The constant that a register is another name for, or itself.
pub fn resolve(body: &Body, mut reg: Reg) -> Reg {
    while let Some(alias) = body.regs[reg as usize].alias {
        reg = alias;
    }
    reg
}

/// `mov`.
pub fn mov<'m>(
    body: &mut Body<'_, 'm>,
    opcode: &mut Opcode,
    operands: &[Operand<'m>],
    guarded: bool,
) -> Result<(), Problem> {
    expect(operands, 2)?;
    match (&operands[0], &operands[1]) {
        (target, Operand::Vector(parts)) => {
            let ty = opcode.ty().ok_or(UNKNOWN)?;
            finish(opcode)?;
            pack(body, target, parts, ty)
        }
        (Operand::Vector(parts), source) => {
            let ty = opcode.ty().ok_or(UNKNOWN)?;
            finish(opcode)?;
            unpack(body, parts, source, ty)
        }
        (target, source) => {
            let rule = alu::lookup(opcode).ok_or(UNKNOWN)?;
            let source = body.source(source, rule.dst)?;
            if alias(body, target, source, guarded) {
                return Ok(());
            }
            body.store_result(target, rule.dst, |body, dst| {
                body.push(rule.run, vec![dst], vec![source]);
            })
        }
    }
}

/// `mov.b64 %rd, {%r1, %r2}`.
fn pack<'m>(
    body: &mut Body<'_, 'm>,
    target: &Operand<'m>,
    parts: &[Operand<'m>],
    ty: ScalarType,
) -> Result<(), Problem> {
    let part_type = ScalarType::bits(ty.bits / parts.len().max(1) as u32);
    let mut uses = parts.iter().map(|part| body.source(part, part_type)).collect::<Result<Vec<_>, _>>()?;
    let run: OpFn = match (ty.bits, parts.len()) {
        (32, 2) => map!(|a: u16, b: u16| -> u32 { u32::from(a) | u32::from(b) << 16 }),
        (64, 2) => map!(|a: u32, b: u32| -> u64 { u64::from(a) | u64::from(b) << 32 }),
        (64, 4) => map!(|a: u16, b: u16, c: u16, d: u16| -> u64 {
            u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48
        }),
        (32, 4) => map!(|a: u16, b: u16, c: u16, d: u16| -> u32 {
            u32::from(a & 0xff) | u32::from(b & 0xff) << 8 | u32::from(c & 0xff) << 16 | u32::from(d) << 24
        }),
        (16, 2) => map!(|a: u16, b: u16| -> u16 { a & 0xff | b << 8 }),
        _ => return Err(UNKNOWN.into()),
    };
    body.store_result(target, ScalarType::bits(ty.bits), |body, dst| {
        body.push(run, vec![dst], std::mem::take(&mut uses));
    })
}

/// `mov.b64 {%r1, %r2}, %rd`.
fn unpack<'m>(
    body: &mut Body<'_, 'm>,
    parts: &[Operand<'m>],
    source: &Operand<'m>,
    ty: ScalarType,
) -> Result<(), Problem> {
    let source = body.source(source, ScalarType::bits(ty.bits))?;
    let part_type = ScalarType::bits(ty.bits / parts.len().max(1) as u32);
    let runs: Vec<OpFn> = match (ty.bits, parts.len()) {
        (32, 2) => vec![map!(|a: u32| -> u16 { a as u16 }), map!(|a: u32| -> u16 { (a >> 16) as u16 })],
        (64, 2) => vec![map!(|a: u64| -> u32 { a as u32 }), map!(|a: u64| -> u32 { (a >> 32) as u32 })],
        (64, 4) => vec![
            map!(|a: u64| -> u16 { a as u16 }),
            map!(|a: u64| -> u16 { (a >> 16) as u16 }),
            map!(|a: u64| -> u16 { (a >> 32) as u16 }),
            map!(|a: u64| -> u16 { (a >> 48) as u16 }),
        ],
        (32, 4) => vec![
            map!(|a: u32| -> u16 { a as u16 & 0xff }),
            map!(|a: u32| -> u16 { (a >> 8) as u16 & 0xff }),
            map!(|a: u32| -> u16 { (a >> 16) as u16 & 0xff }),
            map!(|a: u32| -> u16 { (a >> 24) as u16 & 0xff }),
        ],
        (16, 2) => vec![map!(|a: u16| -> u16 { a & 0xff }), map!(|a: u16| -> u16 { a >> 8 })],
        _ => return Err(UNKNOWN.into()),
    };
    // A part may be the source itself: then it must be written last, from a copy.
    let copy = body.temporary(ty.bits);
    let keep: OpFn = match ty.bits {
        16 => map!(|a: u16| -> u16 { a }),
        32 => map!(|a: u32| -> u32 { a }),
        _ => map!(|a: u64| -> u64 { a }),
    };
    let overlaps = parts.iter().any(|part| {
        matches!(part, Operand::Name(name) if matches!(body.lookup(name), Some(Symbol::Reg(reg)) if reg == source))
    });
    let from = if overlaps {
        body.push(keep, vec![copy], vec![source]);
        copy
    } else {
        source
    };
    for (part, run) in parts.iter().zip(runs) {
        if *part == Operand::Name("_") {
            continue;
        }
        body.store_result(part, part_type, |body, dst| {
            body.push(run, vec![dst], vec![from]);
        })?;
    }
    Ok(())
}

/// The generic window of a space, for `cvta`.
fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        _ => 0,
    }
}

/// `cvta{.to}.space.size d, a`.
pub fn cvta<'m>(
    body: &mut Body<'_, 'm>,
    opcode: &mut Opcode,
    operands: &[Operand<'m>],
    guarded: bool,
) -> Result<(), Problem> {
    expect(operands, 2)?;
    let to = opcode.flag("to");
    let space = opcode.take(Space::parse).ok_or(UNKNOWN)?;
    let ty = opcode.ty().ok_or(UNKNOWN)?;
    finish(opcode)?;
    if ty.bits != 64 {
        return Err("only 64-bit addresses are supported".into());
    }
    let source = body.source(&operands[1], ty)?;
    let window = window(space);
    if window == 0 && alias(body, &operands[0], source, guarded) {
        return Ok(());
    }
    let run = if window == 0 {
        map!(|a: u64| -> u64 { a })
    } else if to {
        map!(|a: u64, b: u64| -> u64 { a.wrapping_sub(b) })
    } else {
        map!(|a: u64, b: u64| -> u64 { a.wrapping_add(b) })
    };
    let mut uses = vec![source];
    if window != 0 {
        uses.push(body.bits(window, 64));
    }
    body.store_result(&operands[0], ty, |body, dst| {
        body.push(run, vec![dst], uses);
    })
}

/// `isspacep.space p, a`.
pub fn is_space<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    expect(operands, 2)?;
    let space = opcode.take(Space::parse).ok_or(UNKNOWN)?;
    finish(opcode)?;
    let address = body.source(&operands[1], ScalarType::bits(64))?;
    let run = match space {
        Space::Shared => {
            map!(|a: u64| -> bool { (SHARED_WINDOW..SHARED_WINDOW + WINDOW_SIZE).contains(&a) })
        }
        Space::Local => {
            map!(|a: u64| -> bool { (LOCAL_WINDOW..LOCAL_WINDOW + WINDOW_SIZE).contains(&a) })
        }
        Space::Param => {
            map!(|a: u64| -> bool { (PARAM_WINDOW..PARAM_WINDOW + WINDOW_SIZE).contains(&a) })
        }
        Space::Global => map!(|a: u64| -> bool { a >= PARAM_WINDOW + WINDOW_SIZE }),
        _ => return Err(UNKNOWN.into()),
    };
    body.store_result(&operands[0], ScalarType::PREDICATE, |body, dst| {
        body.push(run, vec![dst], vec![address]);
    })
}
