//! Loads, stores and hints to the memory system.

use super::body::{Body, Symbol, register_bits};
use super::draft::Reg;
use super::problem::{Problem, UNKNOWN, expect, finish};
use crate::exec::op::map;
use crate::exec::opcode::Opcode;
use crate::exec::program::Source;
use crate::exec::{control, memory};
use crate::machine::access::{AccessKind, Meets, MemorySite};
use crate::machine::address::space;
use crate::ptx::{Kind, Operand, ScalarType, Space};

/// Where an instruction's address is: the register, the offset to add, and which kind of addresses these are.
pub struct Address {
    /// Base register: 32 bits wide for shared and local memory, else 64.
    pub base: Reg,
    /// Added to it.
    pub offset: u64,
    /// Operations for this space.
    pub space: u8,
}

/// The operations' space for a named one.
fn operation_space(named: Space) -> u8 {
    match named {
        Space::Global | Space::Const => space::GLOBAL,
        Space::Shared => space::SHARED,
        Space::Local => space::LOCAL,
        Space::Param | Space::Generic => space::GENERIC,
    }
}

/// Reads an address operand.
pub fn address<'m>(body: &mut Body<'_, 'm>, operand: &Operand<'m>, named: Space) -> Result<Address, Problem> {
    let Operand::Address(base, offset) = operand else {
        return Err(format!("operand {operand:?} is no address"));
    };
    let kind = operation_space(named);
    let bits = if matches!(kind, space::SHARED | space::LOCAL) { 32 } else { 64 };
    let offset = *offset as u64;
    let Some(name) = base else {
        return Ok(Address { base: body.bits(offset, bits), offset: 0, space: kind });
    };
    match body.lookup(name) {
        Some(Symbol::Reg(reg)) => {
            let have = body.regs[reg as usize].bits;
            let base = match (have, bits) {
                (32, 32) | (64, 64) => reg,
                (64, 32) => {
                    let narrow = body.temporary(32);
                    // What does not fit must not wrap around into what is valid.
                    let run = map!(|a: u64| -> u32 { a.min(u64::from(u32::MAX - (1 << 24))) as u32 });
                    body.push(run, vec![narrow], vec![reg]);
                    narrow
                }
                _ => {
                    return Err(format!("{name} has {have} bits where an address has {bits}"));
                }
            };
            Ok(Address { base, offset, space: kind })
        }
        // Parameters of functions live on the stack.
        Some(Symbol::Stack(slot)) => {
            let (bits, space) = if named == Space::Generic { (64, space::GENERIC) } else { (32, space::LOCAL) };
            let base = body.constant(Source::Local { offset: slot.offset }, bits);
            Ok(Address { base, offset, space })
        }
        Some(Symbol::Fixed(address)) => Ok(Address { base: body.bits(address, bits), offset, space: kind }),
        Some(Symbol::Param(slot)) => {
            let address = crate::machine::address::PARAM_WINDOW + u64::from(slot.offset);
            Ok(Address { base: body.bits(address, 64), offset, space: space::GENERIC })
        }
        _ => Err(format!("{name} is not declared")),
    }
}

/// Whether an address operand's base is a register that holds a function's stack or a kernel parameter's address.
fn param_space(body: &Body, operand: &Operand) -> Space {
    match operand {
        Operand::Address(Some(name), _) => match body.lookup(name) {
            Some(Symbol::Reg(_)) if !body.function.is_kernel => Space::Local,
            Some(Symbol::Stack(_)) => Space::Local,
            _ => Space::Param,
        },
        _ => Space::Param,
    }
}

/// `ld` and `st`.
pub fn lower<'m>(
    body: &mut Body<'_, 'm>,
    opcode: &mut Opcode,
    operands: &[Operand<'m>],
    guarded: bool,
) -> Result<(), Problem> {
    let store = opcode.base == "st";
    let named = opcode.take(Space::parse).unwrap_or(Space::Generic);
    let order = opcode.one_of(&["volatile", "relaxed", "acquire", "release", "mmio"]);
    let (strong, meets) = (order.is_some(), Meets::of(order));
    opcode.one_of(&["cta", "cluster", "gpu", "sys"]);
    opcode.flag("weak");
    opcode.flag("nc");
    let hinted = cache_operators(opcode);
    let count = match opcode.one_of(&["v2", "v4"]) {
        Some("v2") => 2,
        Some(_) => 4,
        None => 1,
    };
    let ty = opcode.ty().ok_or(UNKNOWN)?;
    finish(opcode)?;
    expect(operands, 2 + usize::from(hinted))?;
    let (target, value) = if store { (&operands[0], &operands[1]) } else { (&operands[1], &operands[0]) };
    let values: Vec<&Operand> = match value {
        Operand::Vector(values) => values.iter().collect(),
        value => vec![value],
    };
    expect_values(&values, count)?;
    if named == Space::Const && store {
        return Err("constant memory is read-only".into());
    }
    if !store && named == Space::Param && parameter(body, target, &values, ty, guarded)? {
        return Ok(());
    }
    let named = if named == Space::Param { param_space(body, target) } else { named };
    let at = address(body, target, named)?;
    let signed = ty.kind == Kind::Signed;
    let bytes = ty.bytes() * count as u32;
    let access = match (store, strong) {
        (false, false) if body.seeds.contain(target, value) => AccessKind::StrongLoad,
        (false, false) => AccessKind::Load,
        (false, true) => AccessKind::StrongLoad,
        (true, false) => AccessKind::Store,
        (true, true) => AccessKind::StrongStore,
    };
    if strong && !store && at.space != space::SHARED {
        body.program.may_wait = true;
    }
    let site = body.site(MemorySite {
        space: named,
        bytes,
        access,
        values: count as u8,
        address: if store { 0 } else { count as u8 },
        wide: !matches!(at.space, space::SHARED | space::LOCAL),
        meets,
        lanes: u32::MAX,
        origin: body.origin,
    });
    if store {
        let run = memory::store(at.space, ty.bits, count).ok_or(UNKNOWN)?;
        let mut uses = vec![at.base];
        for value in values {
            uses.push(body.source(value, ty)?);
        }
        let draft = body.push(run, vec![], uses);
        (draft.imm, draft.aux, draft.observed) = (at.offset, site, true);
        return Ok(());
    }
    let run = memory::load(at.space, ty.bits, signed, count).ok_or(UNKNOWN)?;
    let bits = register_bits(ty);
    // Registers wider than the type are filled from temporaries afterwards.
    let targets: Vec<Reg> = (0..count).map(|_| body.temporary(bits)).collect();
    let draft = body.push(run, targets.clone(), vec![at.base]);
    (draft.imm, draft.aux, draft.observed) = (at.offset, site, true);
    let load = body.drafts.len() - 1;
    for (part, value) in values.iter().enumerate() {
        let from = targets[part];
        if let Some(reg) = direct_target(body, value, bits) {
            body.drafts[load].defs[part] = reg;
            continue;
        }
        body.store_result(value, ty, |body, dst| {
            let run = match bits {
                16 => map!(|a: u16| -> u16 { a }),
                32 => map!(|a: u32| -> u32 { a }),
                _ => map!(|a: u64| -> u64 { a }),
            };
            body.push(run, vec![dst], vec![from]);
        })?;
    }
    Ok(())
}

/// The register that an operation can write without a detour.
pub fn direct_target(body: &Body, operand: &Operand, bits: u32) -> Option<Reg> {
    let Operand::Name(name) = operand else {
        return None;
    };
    match body.lookup(name) {
        Some(Symbol::Reg(reg)) if body.regs[reg as usize].bits == bits => Some(reg),
        _ => None,
    }
}

fn expect_values(values: &[&Operand], count: usize) -> Result<(), Problem> {
    if values.len() == count { Ok(()) } else { Err(format!("{} values where {count} are needed", values.len())) }
}

/// Takes cache operators; whether there is an operand for a cache policy.
pub fn cache_operators(opcode: &mut Opcode) -> bool {
    while opcode
        .take(|word| {
            let known = matches!(word, "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt")
                || word.starts_with("L1::")
                || (word.starts_with("L2::") && word != "L2::cache_hint");
            known.then_some(())
        })
        .is_some()
    {}
    opcode.flag("L2::cache_hint")
}

/// A load of a kernel parameter whose place is known is a constant; whether it was one.
fn parameter<'m>(
    body: &mut Body<'_, 'm>,
    target: &Operand<'m>,
    values: &[&Operand<'m>],
    ty: ScalarType,
    guarded: bool,
) -> Result<bool, Problem> {
    let Operand::Address(Some(name), offset) = target else {
        return Ok(false);
    };
    let Some(Symbol::Param(slot)) = body.lookup(name) else {
        return Ok(false);
    };
    let end = i64::from(body.program.param_bytes.next_multiple_of(8));
    for (part, value) in values.iter().enumerate() {
        let offset = i64::from(slot.offset) + offset + part as i64 * i64::from(ty.bytes());
        if offset < 0 || offset + i64::from(ty.bytes()) > end {
            return Err(format!("reads parameters at {offset}, of which there are {end} bytes"));
        }
        let signed = ty.kind == Kind::Signed;
        let bits = register_bits(ty);
        let source = Source::Param { offset: offset as u32, bytes: ty.bytes(), signed };
        let constant = body.constant(source, bits);
        if super::moves::alias(body, value, constant, guarded) {
            continue;
        }
        body.store_result(value, ty, |body, dst| {
            let run = match bits {
                16 => map!(|a: u16| -> u16 { a }),
                32 => map!(|a: u32| -> u32 { a }),
                _ => map!(|a: u64| -> u64 { a }),
            };
            body.push(run, vec![dst], vec![constant]);
        })?;
    }
    Ok(true)
}

/// Instructions that change no value: prefetches, fences, sleep.
pub fn hint<'m>(body: &mut Body<'_, 'm>, opcode: &Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    match opcode.base {
        "createpolicy" => {
            let target = operands.first().ok_or(UNKNOWN)?;
            let zero = body.bits(0, 64);
            body.store_result(target, ScalarType::bits(64), |body, dst| {
                body.push(map!(|a: u64| -> u64 { a }), vec![dst], vec![zero]);
            })
        }
        "nanosleep" => {
            body.push(control::sleep(), vec![], vec![]);
            Ok(())
        }
        // Memory is always in order here, and there is nothing to fetch ahead.
        _ => {
            body.push(control::nothing(), vec![], vec![]);
            Ok(())
        }
    }
}
