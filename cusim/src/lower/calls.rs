//! Calls of functions, and of the few that the system provides.

use super::body::{Body, Symbol};
use super::draft::Reg;
use super::problem::{Problem, expect};
use crate::exec::op::OpFn;
use crate::exec::program::{CallSite, Slot, Source};
use crate::exec::{control, heap, memory, system};
use crate::machine::access::{AccessKind, Meets, MemorySite};
use crate::machine::address::space;
use crate::ptx::{Operand, ScalarType, Space};

/// `call{.uni} (results), function, (arguments){, prototype}`.
pub fn lower<'m>(body: &mut Body<'_, 'm>, operands: &[Operand<'m>]) -> Result<(), Problem> {
    let (results, rest) = match operands {
        [Operand::List(results), rest @ ..] => (&results[..], rest),
        rest => (&[][..], rest),
    };
    let (target, rest) = rest.split_first().ok_or("the function is missing")?;
    let (args, prototype) = match rest {
        [Operand::List(args), prototype @ ..] => (&args[..], prototype),
        prototype => (&[][..], prototype),
    };
    let site = CallSite { args: slots(body, args)?, results: slots(body, results)? };
    let Operand::Name(name) = target else {
        return Err(format!("{target:?} is no function"));
    };
    if let Some(Symbol::Reg(address)) = body.lookup(name) {
        expect(prototype, 1)?;
        let Operand::Name(prototype) = &prototype[0] else {
            return Err("the prototype is missing".into());
        };
        let (returns, params) =
            body.prototypes.get(prototype).ok_or_else(|| format!("there is no prototype {prototype}"))?;
        let sizes = |slots: &[Slot]| slots.iter().map(|slot| slot.bytes).collect::<Vec<_>>();
        if sizes(&site.args) != *params || sizes(&site.results) != *returns {
            return Err(format!("the call does not fit prototype {prototype}"));
        }
        body.program.calls.push(site);
        let aux = body.program.calls.len() as u32 - 1;
        body.push(control::call_indirect(), vec![], vec![address]).aux = aux;
        return Ok(());
    }
    if let Some(function) = body.reached.functions.iter().position(|function| function.name == *name) {
        body.program.calls.push(site);
        let aux = body.program.calls.len() as u32 - 1;
        let draft = body.push(control::call(), vec![], vec![]);
        (draft.imm, draft.aux) = (function as u64, aux);
        return Ok(());
    }
    system_call(body, name, &site)
}

fn slots(body: &Body, operands: &[Operand]) -> Result<Vec<Slot>, Problem> {
    operands
        .iter()
        .map(|operand| match operand {
            Operand::Name(name) => match body.lookup(name) {
                Some(Symbol::Stack(slot)) => Ok(slot),
                _ => Err(format!("{name} is not a .param variable")),
            },
            operand => Err(format!("argument {operand:?} is not a .param variable")),
        })
        .collect()
}

/// Functions that the driver provides.
fn system_call(body: &mut Body, name: &str, site: &CallSite) -> Result<(), Problem> {
    let (run, arguments, results): (OpFn, usize, usize) = match name {
        "vprintf" => (system::print(), 2, 1),
        "__assertfail" => (system::assert_fail(), 5, 0),
        "malloc" => (heap::allocate(), 1, 1),
        "free" => (heap::free(), 1, 0),
        _ => {
            return Err(format!("function {name} is neither in this module nor provided by cusim"));
        }
    };
    let result_bytes = if name == "malloc" { 8 } else { 4 };
    let sized = site.results.iter().all(|slot| slot.bytes == result_bytes);
    if site.args.len() != arguments || site.results.len() != results || !sized {
        return Err(format!("{name} takes other parameters"));
    }
    let uses = site.args.iter().map(|slot| load_argument(body, *slot)).collect::<Result<Vec<_>, _>>()?;
    let defs: Vec<Reg> = site.results.iter().map(|slot| body.temporary(slot.bytes * 8)).collect();
    body.push(run, defs.clone(), uses);
    if matches!(name, "malloc" | "free") {
        body.program.uses_heap = true;
        // Who comes first gets which address.
        body.program.order_sensitive = true;
    }
    if let (Some(result), Some(slot)) = (defs.first(), site.results.first()) {
        let base = body.constant(Source::Local { offset: slot.offset }, 32);
        let aux = stack_site(body, slot.bytes, AccessKind::Store, 0);
        let run = memory::store(space::LOCAL, slot.bytes * 8, 1).ok_or("a result of this size")?;
        let draft = body.push(run, vec![], vec![base, *result]);
        (draft.aux, draft.observed) = (aux, true);
    }
    Ok(())
}

fn stack_site(body: &mut Body, bytes: u32, access: AccessKind, address: u8) -> u32 {
    let origin = body.origin;
    body.site(MemorySite {
        space: Space::Local,
        bytes,
        access,
        values: 1,
        address,
        wide: false,
        meets: Meets::default(),
        lanes: u32::MAX,
        origin,
    })
}

fn load_argument(body: &mut Body, slot: Slot) -> Result<Reg, Problem> {
    let ty = ScalarType::bits(slot.bytes * 8);
    let value = body.temporary(ty.bits);
    let base = body.constant(Source::Local { offset: slot.offset }, 32);
    let aux = stack_site(body, slot.bytes, AccessKind::Load, 1);
    let run = memory::load(space::LOCAL, ty.bits, false, 1).ok_or("an argument of this size")?;
    body.push(run, vec![value], vec![base]).aux = aux;
    Ok(value)
}
