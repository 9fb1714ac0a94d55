//! Names: where they are declared and what they stand for.

use std::collections::HashMap;

use super::super::draft::{Reg, RegInfo};
use super::super::problem::Problem;
use super::{Body, Symbol, register_bits};
use crate::exec::program::Slot;
use crate::ptx::{Operand, Space, Statement, Variable};

impl<'m> Body<'_, 'm> {
    pub fn declare_params(&mut self) {
        let function = self.function;
        if function.is_kernel {
            let slots = self.program.params.clone();
            for (param, slot) in function.params.iter().zip(slots) {
                self.scopes[0].insert(param.name, Symbol::Param(slot));
            }
            return;
        }
        for (list, is_param) in [(&function.params, true), (&function.returns, false)] {
            for variable in list {
                let slot = self.stack_slot(variable);
                self.scopes[0].insert(variable.name, Symbol::Stack(slot));
                if is_param { self.params.push(slot) } else { self.returns.push(slot) }
            }
        }
    }

    pub(super) fn stack_slot(&mut self, variable: &Variable) -> Slot {
        let offset = self.stack_bytes.next_multiple_of(variable.align.max(4));
        let bytes = variable.size().min(1 << 20) as u32;
        self.stack_bytes = offset + bytes;
        Slot { offset, bytes }
    }

    /// A first pass that numbers registers and labels, and counts how often each register is written.
    pub fn survey(&mut self, body: &'m [Statement<'m>]) {
        for (index, statement) in body.iter().enumerate() {
            match statement {
                Statement::Label(name) => {
                    let label = self.labels.len() as u32;
                    self.labels.push(0);
                    if self.label_names.insert(name, label).is_some() {
                        self.problems.push((self.function.line, format!("label {name} is defined twice")));
                    }
                }
                Statement::Targets { name, labels } => {
                    self.tables.insert(name, labels.clone());
                }
                Statement::Prototype { name, returns, params } => {
                    let sizes = |list: &[Variable]| list.iter().map(|v| v.size() as u32).collect::<Vec<_>>();
                    self.prototypes.insert(name, (sizes(returns), sizes(params)));
                }
                Statement::Registers { name, count, ty } => {
                    let first = self.regs.len() as Reg;
                    if self.regs.len() + count.unwrap_or(1) as usize > 1 << 20 {
                        self.problems.push((self.function.line, "too many registers".into()));
                        return;
                    }
                    if ty.bits == 128 {
                        self.problems.push((self.function.line, format!("128-bit register {name}")));
                    }
                    for _ in 0..count.unwrap_or(1) {
                        self.regs.push(RegInfo {
                            bits: register_bits(*ty).min(64),
                            defs: 0,
                            alias: None,
                            constant: None,
                            temporary: false,
                        });
                    }
                    self.declared.insert(index, first);
                    let symbol = count.map_or(Symbol::Reg(first), |count| Symbol::Family(first, count));
                    self.bind(name, symbol);
                }
                Statement::ScopeOpen => self.scopes.push(HashMap::new()),
                Statement::ScopeClose => {
                    self.scopes.pop();
                }
                Statement::Instruction(instruction) => {
                    if let Some(first) = instruction.operands.first() {
                        self.count_definitions(first);
                    }
                }
                _ => {}
            }
        }
        self.scopes.truncate(1);
    }

    pub(super) fn count_definitions(&mut self, operand: &Operand<'m>) {
        match operand {
            Operand::Name(name) => {
                if let Some(Symbol::Reg(reg)) = self.lookup(name) {
                    self.regs[reg as usize].defs += 1;
                }
            }
            Operand::Vector(list) => list.iter().for_each(|operand| self.count_definitions(operand)),
            Operand::Pair(a, b) => {
                self.count_definitions(a);
                self.count_definitions(b);
            }
            _ => {}
        }
    }

    pub(super) fn bind(&mut self, name: &'m str, symbol: Symbol) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, symbol);
        }
    }

    pub fn declare(&mut self, index: usize, statement: &'m Statement<'m>) -> Result<(), Problem> {
        match statement {
            Statement::Registers { name, count, .. } => {
                if let Some(first) = self.declared.get(&index).copied() {
                    self.bind(name, count.map_or(Symbol::Reg(first), |count| Symbol::Family(first, count)));
                }
            }
            Statement::ScopeOpen => self.scopes.push(HashMap::new()),
            Statement::ScopeClose => {
                self.scopes.pop();
            }
            Statement::Variable(variable) => {
                let symbol = match variable.space {
                    Space::Local | Space::Param => {
                        let slot = self.stack_slot(variable);
                        if self.stack_bytes > 512 << 10 {
                            return Err(format!("{} bytes of local memory; the limit is 512 KiB", self.stack_bytes));
                        }
                        Symbol::Stack(slot)
                    }
                    Space::Shared => {
                        let address = self.reached.shared_addresses.get(&(self.function.name, variable.name));
                        Symbol::Fixed(u64::from(address.copied().unwrap_or(0)))
                    }
                    space => {
                        return Err(format!(".{space} variable {} inside a function", variable.name));
                    }
                };
                self.bind(variable.name, symbol);
            }
            _ => {}
        }
        Ok(())
    }

    /// What a name means here.
    pub fn lookup(&self, name: &str) -> Option<Symbol> {
        for scope in self.scopes.iter().rev() {
            if let Some(symbol) = scope.get(name) {
                return Some(*symbol);
            }
            let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
            if prefix.len() < name.len()
                && let Some(Symbol::Family(first, count)) = scope.get(prefix)
                && let Ok(number) = name[prefix.len()..].parse::<u32>()
                && number < *count
            {
                return Some(Symbol::Reg(first + number));
            }
        }
        if let Some(variable) = self.module.variables.iter().find(|variable| variable.name == name) {
            return match variable.space {
                Space::Shared => {
                    let address = self.reached.shared_addresses.get(&("", name))?;
                    Some(Symbol::Fixed(u64::from(*address)))
                }
                _ => Some(Symbol::Fixed(*self.globals.get(name)?)),
            };
        }
        crate::lower::function_address(self.module, name).map(Symbol::Fixed)
    }
}
