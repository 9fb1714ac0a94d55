//! Drafts to code: registers get their places, labels their addresses.

use super::body::Body;
use super::draft::{Flow, Reg};
use super::registers::assign;
use crate::exec::op::{Inst, NEGATE, NO_GUARD};
use crate::exec::program::{Constant, FunctionCode, Source};
use crate::exec::{control, observe};

/// Operands that an instruction holds itself.
const INLINE_OPERANDS: usize = 6;

impl Body<'_, '_> {
    /// Ends the function: appends its code to the program.
    pub fn finish(mut self) -> FunctionCode {
        self.resolve_aliases();
        let assignment = assign(&self.drafts, &self.regs, &self.labels);
        let entry = self.program.code.len() as u32;
        let slot = |reg: &Reg| assignment.slots[*reg as usize];
        for draft in &self.drafts {
            let mut ops = [0; INLINE_OPERANDS];
            let operands: Vec<u32> = draft.defs.iter().chain(&draft.uses).map(slot).collect();
            if operands.len() <= INLINE_OPERANDS {
                ops[..operands.len()].copy_from_slice(&operands);
            } else {
                ops[0] = self.program.operands.len() as u32;
                self.program.operands.extend(operands);
            }
            let aux = match &draft.flow {
                Flow::Jump(label) | Flow::Branch(label) => entry + self.labels[*label as usize] as u32,
                Flow::Table(labels) => {
                    let targets = labels.iter().map(|label| entry + self.labels[*label as usize] as u32);
                    self.program.tables.push(targets.collect());
                    self.program.tables.len() as u32 - 1
                }
                _ => draft.aux,
            };
            let guard = match draft.guard {
                None => NO_GUARD,
                Some((reg, negated)) => slot(&reg) | if negated { NEGATE } else { 0 },
            };
            let observed = draft.observed && self.options.observe;
            let is_branch = matches!(draft.flow, Flow::Branch(_));
            let run = match (draft.guard.is_some() && !is_branch, observed) {
                (false, false) => draft.run,
                (true, false) => control::guarded(),
                (false, true) => observe::observed(),
                (true, true) => observe::guarded_observed(),
            };
            self.program.code.push(Inst {
                run,
                inner: draft.run,
                ops,
                imm: draft.imm,
                guard,
                aux,
                origin: draft.origin,
            });
        }
        let mut constants: Vec<Constant> = self
            .regs
            .iter()
            .enumerate()
            .filter(|(reg, _)| assignment.used[*reg])
            .filter_map(|(reg, info)| {
                Some(Constant { slot: assignment.slots[reg], bits: info.bits, source: info.constant? })
            })
            .collect();
        constants.extend(assignment.undefined.iter().map(|reg| Constant {
            slot: slot(reg),
            bits: self.regs[*reg as usize].bits,
            source: Source::Undefined,
        }));
        self.program.registers = self.program.registers.max(assignment.pressure);
        FunctionCode {
            name: self.function.name.to_string(),
            entry,
            register_bytes: assignment.bytes,
            local_bytes: self.stack_bytes.next_multiple_of(16),
            constants,
            params: std::mem::take(&mut self.params),
            returns: std::mem::take(&mut self.returns),
        }
    }

    /// Replaces registers that hold a constant by that constant's register, everywhere.
    fn resolve_aliases(&mut self) {
        let resolved: Vec<Reg> = (0..self.regs.len())
            .map(|reg| {
                let mut reg = reg as Reg;
                while let Some(alias) = self.regs[reg as usize].alias {
                    reg = alias;
                }
                reg
            })
            .collect();
        for draft in &mut self.drafts {
            draft.uses.iter_mut().for_each(|reg| *reg = resolved[*reg as usize]);
            if let Some((guard, _)) = &mut draft.guard {
                *guard = resolved[*guard as usize];
            }
        }
    }
}
