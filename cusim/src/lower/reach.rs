//! Which functions and shared variables a kernel can reach, and where the latter lie.

use std::collections::HashMap;

use crate::machine::address::FIRST_OFFSET;
use crate::machine::listing::{SharedLayout, SharedVariable};
use crate::ptx::{Function, Instruction, Module, Operand, Space, Statement, Variable};

/// Bytes between shared variables that nothing may touch. Addresses keep their place modulo this, so that banks are
/// those of the gapless layout.
const GAP: u32 = 128;

/// Special registers that say where the reserved part of shared memory lies begin with this.
pub const RESERVED_NAMES: &str = "%reserved_smem_offset_";

/// Bytes of shared memory that the system keeps for itself in each block.
pub const RESERVED_BYTES: u32 = 1024;

/// What a kernel can reach.
pub struct Reached<'m> {
    /// The kernel, then functions; callees after their callers, unless there is recursion.
    pub functions: Vec<&'m Function<'m>>,
    /// Indices of each function's callees.
    pub calls: Vec<Vec<usize>>,
    /// Whether call depth has no bound that can be read off: recursion, or calls by address.
    pub unbounded: bool,
    /// Shared memory.
    pub shared: SharedLayout,
    /// Where the part of shared memory begins that the system keeps for itself, if the kernel asks for that.
    pub reserved_shared: Option<u32>,
    /// Address of each shared variable: by name at module scope, by name and function inside one.
    pub shared_addresses: HashMap<(&'m str, &'m str), u32>,
}

fn instructions<'f, 'a>(function: &'f Function<'a>) -> impl Iterator<Item = &'f Instruction<'a>> {
    function.body.iter().flatten().filter_map(|statement| match statement {
        Statement::Instruction(instruction) => Some(instruction),
        _ => None,
    })
}

/// Calls `visit` with every name in an operand.
fn names<'a>(operand: &Operand<'a>, visit: &mut impl FnMut(&'a str)) {
    match operand {
        Operand::Name(name) | Operand::Offset(name, _) | Operand::Address(Some(name), _) => visit(name),
        Operand::Vector(list) | Operand::List(list) => list.iter().for_each(|operand| names(operand, visit)),
        Operand::Pair(a, b) => {
            names(a, visit);
            names(b, visit);
        }
        _ => {}
    }
}

/// Finds everything that a kernel can reach.
pub fn reach<'m>(module: &'m Module<'m>, kernel: &'m Function<'m>) -> Reached<'m> {
    let defined: HashMap<&str, &Function> = module
        .functions
        .iter()
        .filter(|function| function.body.is_some() && !function.is_kernel)
        .map(|function| (function.name, function))
        .collect();
    let module_shared: HashMap<&str, &Variable> = module
        .variables
        .iter()
        .filter(|variable| variable.space == Space::Shared)
        .map(|variable| (variable.name, variable))
        .collect();
    let mut functions = vec![kernel];
    let mut calls: Vec<Vec<usize>> = vec![];
    let mut used_shared: Vec<&Variable> = vec![];
    let mut indirect = false;
    let mut reserved = false;
    let mut next = 0;
    while next < functions.len() {
        let function = functions[next];
        let mut callees = vec![];
        for instruction in instructions(function) {
            let is_call = instruction.opcode.starts_with("call");
            let mut found = vec![];
            for operand in &instruction.operands {
                names(operand, &mut |name| found.push(name));
            }
            let by_register = |operand: &Operand| matches!(operand, Operand::Name(name) if name.starts_with('%'));
            if is_call && instruction.operands.iter().any(by_register) {
                indirect = true;
                found.extend(defined.keys());
            }
            reserved |= found.iter().any(|name| name.starts_with(RESERVED_NAMES));
            // A hash map's order must not decide the order of the functions.
            found.sort_by_key(|name| module.functions.iter().position(|function| function.name == *name));
            for name in found {
                if let Some(callee) = defined.get(name) {
                    let index = functions.iter().position(|known| known.name == name).unwrap_or_else(|| {
                        functions.push(callee);
                        functions.len() - 1
                    });
                    callees.push(index);
                }
                if let Some(variable) = module_shared.get(name)
                    && !used_shared.iter().any(|known| known.name == name)
                {
                    used_shared.push(variable);
                }
            }
        }
        callees.sort_unstable();
        callees.dedup();
        calls.push(callees);
        next += 1;
    }
    let (functions, calls, recursive) = sort(&functions, &calls);
    let mut reached = Reached {
        functions,
        calls,
        unbounded: recursive || indirect,
        shared: SharedLayout::default(),
        reserved_shared: reserved.then_some(FIRST_OFFSET),
        shared_addresses: HashMap::new(),
    };
    lay_out(&mut reached, &used_shared);
    reached
}

/// Sorts functions so that callees follow callers; tells whether that is impossible.
fn sort<'m>(functions: &[&'m Function<'m>], calls: &[Vec<usize>]) -> (Vec<&'m Function<'m>>, Vec<Vec<usize>>, bool) {
    let mut callers = vec![0; functions.len()];
    calls.iter().flatten().for_each(|callee| callers[*callee] += 1);
    let mut order = vec![0];
    let mut at = 0;
    while at < order.len() {
        for callee in &calls[order[at]] {
            callers[*callee] -= 1;
            if callers[*callee] == 0 && *callee != 0 {
                order.push(*callee);
            }
        }
        at += 1;
    }
    let recursive = order.len() < functions.len() || calls.iter().flatten().any(|callee| *callee == 0);
    for index in 0..functions.len() {
        if !order.contains(&index) {
            order.push(index);
        }
    }
    let mut place = vec![0; functions.len()];
    order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
    let sorted = order.iter().map(|old| functions[*old]).collect();
    let calls = order.iter().map(|old| calls[*old].iter().map(|callee| place[*callee]).collect()).collect();
    (sorted, calls, recursive)
}

/// Lays out shared memory with gaps between variables.
fn lay_out<'m>(reached: &mut Reached<'m>, module_shared: &[&'m Variable<'m>]) {
    let mut compact = 0u32;
    let mut padded = FIRST_OFFSET;
    if let Some(start) = reached.reserved_shared {
        // It does not count as the kernel's, and moves no bank.
        let end = start + RESERVED_BYTES;
        reached.shared.variables.push(SharedVariable { name: "reserved shared memory".into(), start, end });
        reached.shared.reserved = start..end;
        padded = end + GAP;
    }
    let mut dynamic_align = 16;
    let mut dynamic = vec![];
    let in_functions = reached.functions.iter().flat_map(|function| {
        function.body.iter().flatten().filter_map(move |statement| match statement {
            Statement::Variable(variable) if variable.space == Space::Shared => Some((function.name, variable)),
            _ => None,
        })
    });
    for (owner, variable) in module_shared.iter().map(|variable| ("", *variable)).chain(in_functions) {
        if variable.is_extern || variable.size() == 0 {
            dynamic_align = dynamic_align.max(variable.align);
            dynamic.push((owner, variable.name));
            continue;
        }
        // Larger than any shared memory: the launch will say so; the sum must not overflow here.
        let size = variable.size().min(1 << 24) as u32;
        compact = compact.next_multiple_of(variable.align);
        padded = place(padded, compact, variable.align);
        reached.shared_addresses.insert((owner, variable.name), padded);
        reached.shared.variables.push(SharedVariable {
            name: variable.name.to_string(),
            start: padded,
            end: padded + size,
        });
        compact = compact.saturating_add(size);
        padded = padded.saturating_add(size + GAP);
    }
    reached.shared.static_bytes = compact;
    let start = compact.next_multiple_of(dynamic_align);
    reached.shared.dynamic_start = place(padded, start, dynamic_align);
    for name in dynamic {
        reached.shared_addresses.insert(name, reached.shared.dynamic_start);
    }
}

/// The first offset from `padded` on that has the same bank and alignment as `compact`.
fn place(padded: u32, compact: u32, align: u32) -> u32 {
    let period = align.max(GAP);
    padded.next_multiple_of(period) + compact % period
}
