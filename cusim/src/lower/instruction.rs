//! One instruction: who lowers it.

use super::body::Body;
use super::draft::Flow;
use super::problem::{NO_TEXTURES, Problem, UNKNOWN, expect, finish};
use crate::exec::alu::{self, compare};
use crate::exec::control;
use crate::exec::op::map;
use crate::exec::opcode::Opcode;
use crate::ptx::{Instruction, Kind, Operand, ScalarType};

/// Lowers an instruction; its guard is applied by the caller.
pub fn lower<'m>(body: &mut Body<'_, 'm>, instruction: &'m Instruction<'m>, guarded: bool) -> Result<(), Problem> {
    let mut opcode = Opcode::new(instruction.opcode);
    let operands = &instruction.operands[..];
    match opcode.base {
        "mov" => super::moves::mov(body, &mut opcode, operands, guarded),
        "cvta" => super::moves::cvta(body, &mut opcode, operands, guarded),
        "isspacep" => super::moves::is_space(body, &mut opcode, operands),
        "ld" | "ldu" | "st" => super::memory::lower(body, &mut opcode, operands, guarded),
        "prefetch" | "prefetchu" | "discard" | "applypriority" | "membar" | "fence" | "createpolicy" | "nanosleep"
        | "pmevent" => super::memory::hint(body, &opcode, operands),
        "atom" | "red" => super::atomics::lower(body, &mut opcode, operands),
        "shfl" | "vote" | "match" | "redux" | "activemask" | "bar" | "barrier" | "elect" | "griddepcontrol" => {
            super::sync::lower(body, &mut opcode, operands)
        }
        "cp" | "mbarrier" => super::asynchronous::lower(body, &mut opcode, operands),
        "ldmatrix" | "stmatrix" | "movmatrix" | "mma" | "wmma" => super::tensor::lower(body, &mut opcode, operands),
        "setp" => set_predicate(body, &mut opcode, operands),
        "set" => set(body, &mut opcode, operands),
        "addc" | "subc" | "madc" => super::carry::lower(body, &mut opcode, operands),
        "add" | "sub" | "mad" if instruction.opcode.contains(".cc") => super::carry::lower(body, &mut opcode, operands),
        "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" => branch(body, &mut opcode, operands, guarded),
        "call" => super::calls::lower(body, operands),
        "tex" | "tld4" | "txq" | "suld" | "sust" | "sured" | "suq" | "istypep" => Err(NO_TEXTURES.into()),
        _ => arithmetic(body, &mut opcode, operands),
    }
}

fn arithmetic<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let rule = alu::lookup(opcode).ok_or(UNKNOWN)?;
    expect(operands, rule.src.len() + 1)?;
    let uses = operands[1..]
        .iter()
        .zip(&rule.src)
        .map(|(operand, ty)| body.source(operand, *ty))
        .collect::<Result<Vec<_>, _>>()?;
    body.store_result(&operands[0], rule.dst, |body, dst| {
        body.push(rule.run, vec![dst], uses);
    })
}

/// `setp.cmp{.bool}.type p|q, a, b, {!}c`.
fn set_predicate<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let combine = opcode.one_of(&["and", "or", "xor"]);
    expect(operands, 3 + usize::from(combine.is_some()))?;
    let packed = opcode.take(|word| ScalarType::parse(word).filter(|ty| is_packed(*ty)));
    let (first, second) = match &operands[0] {
        Operand::Pair(first, second) => (&**first, Some(&**second)),
        first => (first, None),
    };
    let third = operands.get(3).map(|operand| body.source(operand, ScalarType::PREDICATE)).transpose()?;
    let tests = match packed {
        // Packed halves: p from the low ones, q from the high ones.
        Some(ty) => {
            let second = second.ok_or("packed comparisons write two predicates")?;
            let (low, high) = compare_halves(body, opcode, operands, ty)?;
            vec![(first, low), (second, high)]
        }
        None => {
            let rule = alu::lookup(opcode).ok_or(UNKNOWN)?;
            let a = body.source(&operands[1], rule.src[0])?;
            let b = body.source(&operands[2], rule.src[1])?;
            let test = body.temporary(1);
            body.push(rule.run, vec![test], vec![a, b]);
            let mut tests = vec![(first, test)];
            if let Some(second) = second {
                let not = body.temporary(1);
                body.push(map!(|a: bool| -> bool { !a }), vec![not], vec![test]);
                tests.push((second, not));
            }
            tests
        }
    };
    for (target, test) in tests {
        let (run, uses) = match (combine, third) {
            (Some("and"), Some(third)) => (map!(|a: bool, b: bool| -> bool { a & b }), vec![test, third]),
            (Some("or"), Some(third)) => (map!(|a: bool, b: bool| -> bool { a | b }), vec![test, third]),
            (Some(_), Some(third)) => (map!(|a: bool, b: bool| -> bool { a ^ b }), vec![test, third]),
            _ => (map!(|a: bool| -> bool { a }), vec![test]),
        };
        body.store_result(target, ScalarType::PREDICATE, |body, dst| {
            // The comparison writes the predicate itself where nothing comes between.
            let direct =
                uses == [test] && body.drafts.last().is_some_and(|last| last.defs == [test] && last.uses != [dst]);
            match body.drafts.last_mut() {
                Some(last) if direct => last.defs = vec![dst],
                _ => {
                    body.push(run, vec![dst], uses);
                }
            }
        })?;
    }
    Ok(())
}

fn is_packed(ty: ScalarType) -> bool {
    matches!(ty.kind, Kind::FloatPair | Kind::BFloatPair)
}

/// Predicates of the low and the high halves' comparison.
fn compare_halves<'m>(
    body: &mut Body<'_, 'm>,
    opcode: &mut Opcode,
    operands: &[Operand<'m>],
    ty: ScalarType,
) -> Result<(u32, u32), Problem> {
    let ftz = opcode.flag("ftz");
    let name = opcode.take(|word| Some(word.to_string())).ok_or(UNKNOWN)?;
    finish(opcode)?;
    let a = body.source(&operands[1], ty)?;
    let b = body.source(&operands[2], ty)?;
    let mut test = |high| {
        let run = compare::half_condition(&name, ty, ftz, high).ok_or(UNKNOWN)?;
        let test = body.temporary(1);
        body.push(run, vec![test], vec![a, b]);
        Ok::<_, Problem>(test)
    };
    Ok((test(false)?, test(true)?))
}

/// `set.cmp{.bool}{.ftz}.dtype.stype d, a, b, {!}c`.
fn set<'m>(body: &mut Body<'_, 'm>, opcode: &mut Opcode, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let combine = opcode.one_of(&["and", "or", "xor"]);
    expect(operands, 3 + usize::from(combine.is_some()))?;
    let src = opcode.ty().ok_or(UNKNOWN)?;
    let dst = opcode.ty().ok_or(UNKNOWN)?;
    let third = operands.get(3).map(|operand| body.source(operand, ScalarType::PREDICATE)).transpose()?;
    let mut tests = if is_packed(src) {
        let (low, high) = compare_halves(body, opcode, operands, src)?;
        vec![low, high]
    } else {
        let ftz = opcode.flag("ftz");
        let name = opcode.take(|word| Some(word.to_string())).ok_or(UNKNOWN)?;
        finish(opcode)?;
        let run = compare::condition(&name, src, ftz).ok_or(UNKNOWN)?;
        let a = body.source(&operands[1], src)?;
        let b = body.source(&operands[2], src)?;
        let test = body.temporary(1);
        body.push(run, vec![test], vec![a, b]);
        vec![test]
    };
    if let (Some(combine), Some(third)) = (combine, third) {
        for test in &mut tests {
            let combined = body.temporary(1);
            let run = match combine {
                "and" => map!(|a: bool, b: bool| -> bool { a & b }),
                "or" => map!(|a: bool, b: bool| -> bool { a | b }),
                _ => map!(|a: bool, b: bool| -> bool { a ^ b }),
            };
            body.push(run, vec![combined], vec![*test, third]);
            *test = combined;
        }
    }
    let run = if tests.len() == 2 { compare::spread_pair(dst) } else { compare::spread(dst) }.ok_or(UNKNOWN)?;
    body.store_result(&operands[0], dst, |body, dst| {
        body.push(run, vec![dst], tests);
    })
}

fn branch<'m>(
    body: &mut Body<'_, 'm>,
    opcode: &mut Opcode,
    operands: &[Operand<'m>],
    guarded: bool,
) -> Result<(), Problem> {
    let uniform = opcode.flag("uni");
    let _ = uniform;
    match (opcode.base, operands) {
        ("bra", [Operand::Name(name)]) => {
            let label = body.label(name)?;
            let run = if guarded { control::branch() } else { control::jump() };
            body.push(run, vec![], vec![]).flow = if guarded { Flow::Branch(label) } else { Flow::Jump(label) };
        }
        ("brx", [index, Operand::Name(table)]) if opcode.flag("idx") => {
            let index = body.source(index, ScalarType::bits(32))?;
            let names = body.tables.get(table).cloned().ok_or_else(|| format!("there is no list {table}"))?;
            let labels = names.iter().map(|name| body.label(name)).collect::<Result<Vec<_>, _>>()?;
            body.push(control::indexed(), vec![], vec![index]).flow = Flow::Table(labels);
        }
        ("ret" | "exit", []) => {
            let run = if opcode.base == "ret" { control::ret() } else { control::exit() };
            body.push(run, vec![], vec![]).flow = if guarded { Flow::Next } else { Flow::End };
        }
        ("trap" | "brkpt", []) => {
            body.push(control::trap(), vec![], vec![]);
        }
        _ => return Err(UNKNOWN.into()),
    }
    finish(opcode)
}
