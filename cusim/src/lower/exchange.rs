//! Loads whose value a compare-and-swap at the same place checks.
//!
//! The usual loop reads a value, computes another from it, and swaps that in if the first is still there. The read may
//! meet what others swap in meanwhile: then the comparison fails, and the loop goes on with what was found. So it is no
//! race, though the load is an ordinary one.

use std::collections::{HashMap, HashSet};

use crate::ptx::{Instruction, Operand, Statement};

/// A place in memory: what its address is computed from, and the distance from there.
type Place<'m> = (Option<&'m str>, i64);

/// Places at which there are compare-and-swaps, and the registers that these compare with.
#[derive(Default)]
pub struct Seeds<'m> {
    known: HashSet<(Place<'m>, &'m str)>,
    /// Registers that are set once, to an address at a distance from another.
    addresses: HashMap<&'m str, Option<(&'m str, i64)>>,
}

impl<'m> Seeds<'m> {
    /// Those of a function.
    pub fn of(body: &'m [Statement<'m>]) -> Self {
        let instructions = || {
            body.iter().filter_map(|statement| match statement {
                Statement::Instruction(instruction) => Some(instruction),
                _ => None,
            })
        };
        let swaps = || instructions().filter(|instruction| is_swap(instruction));
        if swaps().next().is_none() {
            return Self::default();
        }
        let mut seeds = Self::default();
        let mut copies: HashMap<&str, Vec<&'m str>> = HashMap::new();
        for instruction in instructions() {
            let Some(Operand::Name(to)) = instruction.operands.first() else {
                continue;
            };
            let address = distance(instruction);
            seeds.addresses.entry(to).and_modify(|known| *known = None).or_insert(address);
            if let Some((from, 0)) = address {
                copies.entry(to).or_default().push(from);
            }
        }
        let mut fresh = vec![];
        for swap in swaps() {
            if let [_, Operand::Address(base, offset), Operand::Name(compared), ..] = &swap.operands[..] {
                fresh.push((seeds.place(*base, *offset), *compared));
            }
        }
        // What is compared may be a copy of what was loaded, as where a float is compared by its bits.
        while let Some((place, register)) = fresh.pop() {
            if seeds.known.insert((place, register)) {
                fresh.extend(copies.get(register).into_iter().flatten().map(|from| (place, *from)));
            }
        }
        seeds
    }

    /// Where an address operand points.
    fn place(&self, mut base: Option<&'m str>, mut offset: i64) -> Place<'m> {
        // What is set once cannot depend on itself, but the text may say so.
        for _ in 0..self.addresses.len() {
            let Some(Some((from, distance))) = base.and_then(|base| self.addresses.get(base)) else {
                break;
            };
            (base, offset) = (Some(*from), offset.wrapping_add(*distance));
        }
        (base, offset)
    }

    /// Whether a load from this address into this register is such a load.
    pub fn contain(&self, address: &Operand<'m>, target: &Operand<'m>) -> bool {
        match (address, target) {
            (Operand::Address(base, offset), Operand::Name(target)) if !self.known.is_empty() => {
                self.known.contains(&(self.place(*base, *offset), *target))
            }
            _ => false,
        }
    }
}

fn is_swap(instruction: &Instruction) -> bool {
    let mut words = instruction.opcode.split('.');
    words.next() == Some("atom") && words.any(|word| word == "cas")
}

/// What an instruction sets its result to, if that is a value at a fixed distance from another.
fn distance<'m>(instruction: &Instruction<'m>) -> Option<(&'m str, i64)> {
    if instruction.guard.is_some() {
        return None;
    }
    match (instruction.opcode.split('.').next()?, &instruction.operands[..]) {
        ("mov", [_, Operand::Name(from)]) => Some((from, 0)),
        ("mov", [_, Operand::Offset(from, distance)]) => Some((from, *distance)),
        ("add", [_, Operand::Name(from), Operand::Int(distance)]) => Some((from, *distance as i64)),
        _ => None,
    }
}
