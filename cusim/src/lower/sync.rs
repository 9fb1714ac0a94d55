//! Shuffles, votes, barriers.

use super::body::Body;
use super::draft::Reg;
use super::problem::{Problem, UNKNOWN, expect, finish};
use crate::exec::op::map;
use crate::exec::opcode::Opcode;
use crate::exec::sync::barrier;
use crate::exec::{control, shuffle, sync};
use crate::ptx::{Kind, Operand, ScalarType};

const B32: ScalarType = ScalarType::bits(32);

/// Lowers an instruction in which lanes or warps meet.
pub fn lower<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    match opcode.base {
        "bar" | "barrier" => return barriers(body, opcode, operands),
        "griddepcontrol" => {
            // The launches of a stream follow each other here: there is nothing to hurry, and who has waited only the checks ask.
            let run = match opcode.one_of(&["launch_dependents", "wait"]).ok_or(UNKNOWN)? {
                "wait" => control::launch_wait(),
                _ => control::nothing(),
            };
            finish(opcode)?;
            expect(operands, 0)?;
            body.push(run, vec![], vec![]);
            return Ok(());
        }
        "activemask" => {
            expect(operands, 1)?;
            let ty = opcode.ty();
            finish(opcode)?;
            return body.store_result(&operands[0], ty.unwrap_or(B32), |body, dst| {
                body.push(control::active_mask(), vec![dst], vec![]);
            });
        }
        _ => {}
    }
    if !opcode.flag("sync") {
        return Err("only the .sync form exists since sm_70".into());
    }
    match opcode.base {
        "shfl" => {
            let run = opcode.take(shuffle::shuffle).ok_or(UNKNOWN)?;
            if opcode.ty() != Some(B32) {
                return Err(UNKNOWN.into());
            }
            finish(opcode)?;
            expect(operands, 5)?;
            let uses = sources(body, &operands[1..], B32)?;
            pair_result(body, &operands[0], B32, run, uses)
        }
        "vote" => {
            let ballot = opcode.flag("ballot");
            let run = if ballot { sync::vote("ballot") } else { opcode.take(sync::vote) }.ok_or(UNKNOWN)?;
            let ty = opcode.ty().ok_or(UNKNOWN)?;
            finish(opcode)?;
            expect(operands, 3)?;
            if ty != (if ballot { B32 } else { ScalarType::PREDICATE }) {
                return Err(UNKNOWN.into());
            }
            let uses = vec![body.source(&operands[1], ScalarType::PREDICATE)?, body.source(&operands[2], B32)?];
            body.store_result(&operands[0], ty, |body, dst| {
                body.push(run, vec![dst], uses);
            })
        }
        "match" => {
            let all = opcode.one_of(&["all", "any"]).ok_or(UNKNOWN)? == "all";
            let ty = opcode.ty().ok_or(UNKNOWN)?;
            finish(opcode)?;
            expect(operands, 3)?;
            let run = sync::matching(all, ty.bits).ok_or(UNKNOWN)?;
            let uses = vec![body.source(&operands[1], ty)?, body.source(&operands[2], B32)?];
            pair_result(body, &operands[0], B32, run, uses)
        }
        "redux" => {
            let name = opcode.one_of(&["add", "min", "max", "and", "or", "xor"]).ok_or(UNKNOWN)?;
            let ty = opcode.ty().ok_or(UNKNOWN)?;
            finish(opcode)?;
            expect(operands, 3)?;
            let run = sync::redux(name, ty.kind == Kind::Signed).filter(|_| ty.bits == 32).ok_or(UNKNOWN)?;
            let uses = sources(body, &operands[1..], B32)?;
            body.store_result(&operands[0], B32, |body, dst| {
                body.push(run, vec![dst], uses);
            })
        }
        "elect" => {
            finish(opcode)?;
            expect(operands, 2)?;
            let uses = sources(body, &operands[1..], B32)?;
            pair_result(body, &operands[0], B32, sync::elect(), uses)
        }
        _ => Err(UNKNOWN.into()),
    }
}

fn sources<'m>(body: &mut Body<'_, 'm>, operands: &[Operand<'m>], ty: ScalarType) -> Result<Vec<Reg>, Problem> {
    operands.iter().map(|operand| body.source(operand, ty)).collect()
}

/// Results `d|p`, of which `p` may be absent.
fn pair_result<'m>(
    body: &mut Body<'_, 'm>,
    target: &Operand<'m>,
    ty: ScalarType,
    run: crate::exec::op::OpFn,
    uses: Vec<Reg>,
) -> Result<(), Problem> {
    let (first, second) = match target {
        Operand::Pair(first, second) => (&**first, Some(&**second)),
        first => (first, None),
    };
    let predicate = body.temporary(1);
    body.store_result(first, ty, |body, dst| {
        body.push(run, vec![dst, predicate], uses);
    })?;
    if let Some(second) = second {
        body.store_result(second, ScalarType::PREDICATE, |body, dst| {
            body.push(map!(|a: bool| -> bool { a }), vec![dst], vec![predicate]);
        })?;
    }
    Ok(())
}

fn barriers<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    if opcode.flag("warp") {
        if !opcode.flag("sync") {
            return Err(UNKNOWN.into());
        }
        finish(opcode)?;
        expect(operands, 1)?;
        let uses = sources(body, operands, B32)?;
        body.push(sync::warp_barrier(), vec![], uses);
        return Ok(());
    }
    let mut flags = 0;
    if opcode.flag("aligned") || opcode.base == "bar" {
        flags |= barrier::ALIGNED;
    }
    opcode.flag("cta");
    let zero = body.bits(0, 32);
    let mut uses = vec![zero, zero];
    match opcode.one_of(&["sync", "arrive", "red"]).ok_or(UNKNOWN)? {
        kind @ ("sync" | "arrive") => {
            finish(opcode)?;
            if operands.is_empty() || operands.len() > 2 || kind == "arrive" && operands.len() != 2 {
                return Err("the barrier's operands are missing".into());
            }
            if kind == "sync" {
                flags |= barrier::WAITS;
            }
            for (slot, operand) in operands.iter().enumerate() {
                uses[slot] = body.source(operand, B32)?;
            }
            if operands.len() == 2 {
                flags |= barrier::COUNTED;
            }
            let draft = body.push(sync::block_barrier(), vec![], uses);
            draft.imm = flags;
            Ok(())
        }
        _ => {
            let name = opcode.one_of(&["popc", "and", "or"]).ok_or(UNKNOWN)?;
            let kind = ["popc", "and", "or"].iter().position(|known| *known == name).unwrap_or(0) as u64;
            let ty = opcode.ty().ok_or(UNKNOWN)?;
            finish(opcode)?;
            if !(3..=4).contains(&operands.len()) {
                return Err("the barrier's operands are missing".into());
            }
            flags |= barrier::WAITS | barrier::REDUCES | kind << barrier::KIND;
            uses[0] = body.source(&operands[1], B32)?;
            if operands.len() == 4 {
                uses[1] = body.source(&operands[2], B32)?;
                flags |= barrier::COUNTED;
            }
            uses.push(body.source(&operands[operands.len() - 1], ScalarType::PREDICATE)?);
            // The result is written when the barrier completes, so its register is named among the sources too.
            let result = body.temporary(if kind == 0 { 32 } else { 1 });
            uses.push(result);
            let draft = body.push(sync::block_barrier(), vec![], uses);
            draft.imm = flags;
            body.store_result(&operands[0], if kind == 0 { B32 } else { ScalarType::PREDICATE }, |body, dst| {
                let run = if ty == ScalarType::PREDICATE {
                    map!(|a: bool| -> bool { a })
                } else {
                    map!(|a: u32| -> u32 { a })
                };
                body.push(run, vec![dst], vec![result]);
            })
        }
    }
}
