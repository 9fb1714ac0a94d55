//! `atom` and `red`.

use super::body::{Body, register_bits};
use super::memory::{address, cache_operators};
use super::problem::{Problem, UNKNOWN, expect, finish};
use crate::exec::atomics;
use crate::exec::opcode::Opcode;
use crate::machine::access::{AccessKind, Meets, MemorySite};
use crate::machine::address::space;
use crate::ptx::{Kind, Operand, ScalarType, Space};

const NAMES: [&str; 10] = ["add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"];

/// Lowers an atomic.
pub fn lower<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let returns = opcode.base == "atom";
    let named = opcode.take(Space::parse).unwrap_or(Space::Generic);
    let meets = Meets::of(opcode.one_of(&["relaxed", "acquire", "release", "acq_rel"]));
    opcode.one_of(&["cta", "cluster", "gpu", "sys"]);
    let hinted = cache_operators(opcode);
    let name = opcode.one_of(&NAMES).ok_or(UNKNOWN)?;
    // f16 and bf16 additions say that they flush nothing.
    opcode.flag("noftz");
    let ty = opcode.ty().ok_or(UNKNOWN)?;
    finish(opcode)?;
    let compare = name == "cas";
    expect(operands, 2 + usize::from(returns) + usize::from(compare) + usize::from(hinted))?;
    let (target, rest) = if returns { (Some(&operands[0]), &operands[1..]) } else { (None, operands) };
    let at = address(body, &rest[0], named)?;
    let b = body.source(&rest[1], ty)?;
    let c = if compare { body.source(&rest[2], ty)? } else { b };
    let run = atomics::lookup(at.space, name, ty).ok_or(UNKNOWN)?;
    let used = matches!(target, Some(Operand::Name(name)) if *name != "_");
    let float = matches!(ty.kind, Kind::Float | Kind::BFloat | Kind::FloatPair | Kind::BFloatPair);
    if at.space != space::SHARED && (used || float || matches!(name, "exch" | "cas")) {
        body.program.order_sensitive = true;
        body.program.may_wait = true;
    }
    let site = body.site(MemorySite {
        space: named,
        bytes: ty.bytes(),
        access: AccessKind::Atomic,
        values: 1,
        address: 1,
        wide: at.space != space::SHARED,
        meets,
        lanes: u32::MAX,
        origin: body.origin,
    });
    let emit = |body: &mut Body<'_, 'm>, dst| {
        let draft = body.push(run, vec![dst], vec![at.base, b, c]);
        (draft.imm, draft.aux, draft.observed) = (at.offset, site, true);
    };
    match target {
        Some(target) => body.store_result(target, ScalarType::bits(ty.bits.max(16)), emit),
        None => {
            let unused = body.temporary(register_bits(ty));
            emit(body, unused);
            Ok(())
        }
    }
}
