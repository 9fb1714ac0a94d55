//! `cp.async.bulk`: copies of whole ranges, of which an mbarrier counts the bytes.

use super::body::Body;
use super::draft::Reg;
use super::memory::{Address, address, cache_operators};
use super::problem::{Problem, UNKNOWN, expect, finish};
use crate::exec::bulk;
use crate::exec::control;
use crate::exec::op::map;
use crate::exec::opcode::Opcode;
use crate::machine::access::{AccessKind, Meets, MemorySite};
use crate::ptx::{Operand, ScalarType, Space};

const B32: ScalarType = ScalarType::bits(32);

/// Lowers what follows `cp.async.bulk`.
pub fn lower<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    // What is copied has arrived when the instruction is done.
    if opcode.flag("commit_group") {
        finish(opcode)?;
        expect(operands, 0)?;
        body.push(control::nothing(), vec![], vec![]);
        return Ok(());
    }
    if opcode.flag("wait_group") {
        opcode.flag("read");
        finish(opcode)?;
        expect(operands, 1)?;
        body.push(control::nothing(), vec![], vec![]);
        return Ok(());
    }
    let hinted = cache_operators(opcode);
    let ends = (opcode.take(Space::parse), opcode.take(Space::parse));
    let operands = if hinted { &operands[..operands.len().saturating_sub(1)] } else { operands };
    match ends {
        (Some(Space::Shared), Some(Space::Global)) if opcode.flag("mbarrier::complete_tx::bytes") => {
            finish(opcode)?;
            expect(operands, 4)?;
            let (to, from) = (place(body, &operands[0], Space::Shared)?, place(body, &operands[1], Space::Global)?);
            let bytes = body.source(&operands[2], B32)?;
            let object = place(body, &operands[3], Space::Shared)?;
            let aux = sites(body, AccessKind::Store, AccessKind::Load);
            body.push(bulk::load(), vec![], vec![to, from, bytes, object]).aux = aux;
            Ok(())
        }
        (Some(Space::Global), Some(Space::Shared)) if opcode.flag("bulk_group") => {
            finish(opcode)?;
            expect(operands, 3)?;
            let (to, from) = (place(body, &operands[0], Space::Global)?, place(body, &operands[1], Space::Shared)?);
            let bytes = body.source(&operands[2], B32)?;
            let aux = sites(body, AccessKind::Load, AccessKind::Store);
            body.push(bulk::store(), vec![], vec![from, to, bytes]).aux = aux;
            Ok(())
        }
        _ => Err(UNKNOWN.into()),
    }
}

/// The register that holds an address, its offset added.
fn place<'m>(body: &mut Body<'_, 'm>, operand: &Operand<'m>, space: Space) -> Result<Reg, Problem> {
    let Address { base, offset, .. } = address(body, operand, space)?;
    if offset == 0 {
        return Ok(base);
    }
    let bits = if space == Space::Shared { 32 } else { 64 };
    let (sum, distance) = (body.temporary(bits), body.bits(offset, bits));
    let run = match bits {
        32 => map!(|a: u32, b: u32| -> u32 { a.wrapping_add(b) }),
        _ => map!(|a: u64, b: u64| -> u64 { a.wrapping_add(b) }),
    };
    body.push(run, vec![sum], vec![base, distance]);
    Ok(sum)
}

/// The sites of the copy's end in shared memory and of the one in device memory, which follows.
fn sites(body: &mut Body, shared: AccessKind, global: AccessKind) -> u32 {
    let origin = body.origin;
    let mut site = |space, access| {
        body.site(MemorySite {
            space,
            bytes: bulk::PIECE as u32,
            access,
            values: 1,
            address: u8::MAX,
            wide: space == Space::Global,
            meets: Meets::default(),
            lanes: u32::MAX,
            origin,
        })
    };
    let first = site(Space::Shared, shared);
    site(Space::Global, global);
    first
}
