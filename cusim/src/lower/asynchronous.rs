//! `cp.async` and `mbarrier`.

use super::body::Body;
use super::memory::{address, cache_operators};
use super::problem::{Problem, UNKNOWN, expect, finish};
use crate::exec::asynchronous as exec;
use crate::exec::op::{OpFn, map};
use crate::exec::opcode::Opcode;
use crate::machine::access::{AccessKind, Meets, MemorySite};
use crate::ptx::{Operand, ScalarType, Space};

const B32: ScalarType = ScalarType::bits(32);
const B64: ScalarType = ScalarType::bits(64);

/// Lowers an asynchronous copy or an mbarrier instruction.
pub fn lower<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    if opcode.base == "mbarrier" {
        return barrier(body, opcode, operands);
    }
    if !opcode.flag("async") {
        return Err(UNKNOWN.into());
    }
    if opcode.flag("bulk") {
        return super::bulk::lower(body, opcode, operands);
    }
    if opcode.flag("commit_group") {
        expect(operands, 0)?;
        body.push(exec::commit(), vec![], vec![]);
        return finish(opcode);
    }
    if opcode.flag("wait_all") {
        expect(operands, 0)?;
        body.push(exec::wait_all(), vec![], vec![]);
        return finish(opcode);
    }
    if opcode.flag("wait_group") {
        expect(operands, 1)?;
        let Operand::Int(groups) = operands[0] else {
            return Err("the number of groups must be a constant".into());
        };
        body.push(exec::wait_group(), vec![], vec![]).imm = groups;
        return finish(opcode);
    }
    if opcode.flag("mbarrier") {
        return copies_arrive(body, opcode, operands);
    }
    copy(body, opcode, operands)
}

/// `cp.async.{ca,cg}.shared.global [dst], [src], size{, read}{, policy}`.
fn copy<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let hinted = cache_operators(opcode);
    if opcode.take(Space::parse) != Some(Space::Shared) || opcode.take(Space::parse) != Some(Space::Global) {
        return Err(UNKNOWN.into());
    }
    finish(opcode)?;
    let operands = if hinted { &operands[..operands.len().saturating_sub(1)] } else { operands };
    if !(3..=4).contains(&operands.len()) {
        return Err(format!("{} operands where 3 or 4 are needed", operands.len()));
    }
    let target = address(body, &operands[0], Space::Shared)?;
    let source = address(body, &operands[1], Space::Global)?;
    let Operand::Int(bytes) = operands[2] else {
        return Err("the size must be a constant".into());
    };
    let mut uses = vec![target.base, source.base];
    if let Some(read) = operands.get(3) {
        let ignore = match read {
            Operand::Not(_) => true,
            Operand::Name(name) => body.register(name).is_ok_and(|reg| body.regs[reg as usize].bits == 1),
            _ => false,
        };
        uses.push(if ignore {
            let skip = body.source(read, ScalarType::PREDICATE)?;
            let count = body.temporary(32);
            let all = body.bits(bytes, 32);
            body.push(map!(|skip: bool, all: u32| -> u32 { if skip { 0 } else { all } }), vec![count], vec![skip, all]);
            count
        } else {
            body.source(read, B32)?
        });
    }
    let partial = uses.len() == 3;
    let run = exec::start(bytes as u32, partial).ok_or("sizes are 4, 8 and 16 bytes")?;
    let origin = body.origin;
    let site = |space, access, address, wide| MemorySite {
        space,
        bytes: bytes as u32,
        access,
        values: 1,
        address,
        wide,
        meets: Meets::default(),
        lanes: u32::MAX,
        origin,
    };
    let aux = body.site(site(Space::Shared, AccessKind::AsyncCopy, 0, false));
    let reads = if partial { AccessKind::PartialCopy } else { AccessKind::AsyncCopy };
    body.site(site(Space::Global, reads, 1, true));
    let draft = body.push(run, vec![], uses);
    draft.imm = target.offset & 0xffff_ffff | source.offset << 32;
    (draft.aux, draft.observed) = (aux, true);
    Ok(())
}

/// `cp.async.mbarrier.arrive{.noinc}.shared.b64 [object]`.
fn copies_arrive<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let counted = opcode.flag("noinc");
    if !opcode.flag("arrive") {
        return Err(UNKNOWN.into());
    }
    // Without .noinc the arrival is added to what the phase waits for, and so changes nothing.
    let count = body.bits(u64::from(counted), 32);
    on_object(body, opcode, operands, (exec::copies_arrive(), AccessKind::Atomic), None, Some(count))
}

fn barrier<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let action = opcode
        .one_of(&["init", "inval", "arrive", "arrive_drop", "test_wait", "try_wait", "pending_count"])
        .or_else(|| opcode.one_of(&["expect_tx"]))
        .ok_or(UNKNOWN)?;
    opcode.one_of(&["release", "acquire", "relaxed"]);
    opcode.one_of(&["cta", "cluster"]);
    opcode.flag("noComplete");
    let one = body.bits(1, 32);
    match action {
        "init" => {
            expect(operands, 2)?;
            let count = body.source(&operands[1], B32)?;
            // What was there before does not matter.
            on_object(body, opcode, &operands[..1], (exec::init(), AccessKind::StrongStore), None, Some(count))
        }
        "inval" => on_object(body, opcode, operands, (exec::invalidate(), AccessKind::Atomic), None, None),
        "expect_tx" => {
            expect(operands, 2)?;
            let bytes = body.source(&operands[1], B32)?;
            on_object(body, opcode, &operands[..1], (exec::expect(), AccessKind::Atomic), None, Some(bytes))
        }
        "arrive" if opcode.flag("expect_tx") => {
            expect(operands, 3)?;
            let bytes = body.source(&operands[2], B32)?;
            let run = (exec::arrive_expect(), AccessKind::Atomic);
            on_object(body, opcode, &operands[1..2], run, Some((&operands[0], B64)), Some(bytes))
        }
        "arrive" | "arrive_drop" => {
            let run = if action == "arrive" { exec::arrive() } else { exec::arrive_drop() };
            let (result, rest) = operands.split_first().ok_or(UNKNOWN)?;
            let count = rest.get(1).map_or(Ok(one), |operand| body.source(operand, B32))?;
            let run = (run, AccessKind::Atomic);
            on_object(body, opcode, &rest[..rest.len().min(1)], run, Some((result, B64)), Some(count))
        }
        "pending_count" => {
            expect(operands, 2)?;
            opcode.ty();
            finish(opcode)?;
            let token = body.source(&operands[1], B64)?;
            body.store_result(&operands[0], B32, |body, dst| {
                body.push(map!(|a: u64| -> u32 { a as u32 & 0xf_ffff }), vec![dst], vec![token]);
            })
        }
        _ => {
            let parity = opcode.flag("parity");
            if !(3..=4).contains(&operands.len()) {
                return Err(format!("{} operands where 3 are needed", operands.len()));
            }
            let run = (if parity { exec::test_parity() } else { exec::test() }, AccessKind::Atomic);
            let token = body.source(&operands[2], if parity { B32 } else { B64 })?;
            on_object(body, opcode, &operands[1..2], run, Some((&operands[0], ScalarType::PREDICATE)), Some(token))
        }
    }
}

/// An operation on the mbarrier object at an address.
fn on_object<'m>(
    body: &mut Body<'_, 'm>,
    opcode: &mut Opcode,
    operands: &[Operand<'m>],
    (run, access): (OpFn, AccessKind),
    result: Option<(&Operand<'m>, ScalarType)>,
    operand: Option<u32>,
) -> Result<(), Problem> {
    let space = opcode.take(Space::parse);
    if opcode.ty() != Some(B64) {
        return Err(UNKNOWN.into());
    }
    finish(opcode)?;
    expect(operands, 1)?;
    let window = crate::machine::address::SHARED_WINDOW;
    let at = match space {
        Some(Space::Shared) => address(body, &operands[0], Space::Shared)?,
        _ => {
            // A generic address: the window is taken off.
            let mut at = address(body, &operands[0], Space::Generic)?;
            let narrow = body.temporary(32);
            let base = body.bits(window, 64);
            let run = map!(|a: u64, window: u64| -> u32 {
                let offset = a.wrapping_sub(window);
                if offset > 1 << 31 { u32::MAX } else { offset as u32 }
            });
            body.push(run, vec![narrow], vec![at.base, base]);
            at.base = narrow;
            at
        }
    };
    let origin = body.origin;
    let aux = body.site(MemorySite {
        space: Space::Shared,
        bytes: 8,
        access,
        values: 1,
        address: 1,
        wide: false,
        meets: Meets::default(),
        lanes: u32::MAX,
        origin,
    });
    let mut uses = vec![at.base];
    uses.extend(operand);
    let emit = |body: &mut Body<'_, 'm>, dst| {
        let draft = body.push(run, vec![dst], uses);
        (draft.imm, draft.aux, draft.observed) = (at.offset, aux, true);
    };
    match result {
        Some((target, ty)) => body.store_result(target, ty, emit),
        None => {
            let unused = body.temporary(64);
            emit(body, unused);
            Ok(())
        }
    }
}
