//! Lowering of one function: names, registers, constants, labels.

use std::collections::HashMap;

use super::draft::{Draft, Flow, Reg, RegInfo};
use super::reach::Reached;
use super::{Globals, Options};
use crate::exec::op::{OpFn, map};
use crate::exec::program::{MemorySite, Origin, Program, Slot, Source, Special};
use crate::ptx::{Function, Instruction, Kind, Module, Operand, ScalarType, SourceLine, Space, Statement, Variable};

/// Why an instruction cannot be lowered.
pub type Problem = String;

/// A name in scope.
#[derive(Clone, Copy, Debug)]
pub enum Symbol {
    /// A register.
    Reg(Reg),
    /// Registers that share a prefix: the first, and how many.
    Family(Reg, u32),
    /// A variable of the stack frame, or a parameter of a function.
    Stack(Slot),
    /// A variable at a fixed address.
    Fixed(u64),
    /// A parameter of the kernel.
    Param(Slot),
}

/// The state of lowering a function.
pub struct Body<'b, 'm> {
    pub module: &'m Module<'m>,
    pub globals: &'b Globals,
    pub options: Options,
    pub reached: &'b Reached<'m>,
    pub function: &'m Function<'m>,
    pub program: &'b mut Program,
    pub drafts: Vec<Draft>,
    pub regs: Vec<RegInfo>,
    /// Draft index of each label.
    pub labels: Vec<usize>,
    pub label_names: HashMap<&'m str, u32>,
    pub tables: HashMap<&'m str, Vec<&'m str>>,
    pub prototypes: HashMap<&'m str, (Vec<u32>, Vec<u32>)>,
    pub problems: Vec<(u32, Problem)>,
    pub params: Vec<Slot>,
    pub returns: Vec<Slot>,
    pub stack_bytes: u32,
    pub origin: u32,
    pub carry: Option<Reg>,
    constants: HashMap<(Source, u32), Reg>,
    scopes: Vec<HashMap<&'m str, Symbol>>,
    declared: HashMap<usize, Reg>,
}

/// Register width that holds values of a type.
pub fn register_bits(ty: ScalarType) -> u32 {
    match ty.bits {
        1 => 1,
        bits if bits <= 16 => 16,
        bits => bits,
    }
}

impl<'b, 'm> Body<'b, 'm> {
    pub fn new(
        module: &'m Module<'m>,
        globals: &'b Globals,
        options: Options,
        reached: &'b Reached<'m>,
        function: &'m Function<'m>,
        program: &'b mut Program,
    ) -> Self {
        Self {
            module,
            globals,
            options,
            reached,
            function,
            program,
            drafts: vec![],
            regs: vec![],
            labels: vec![],
            label_names: HashMap::new(),
            tables: HashMap::new(),
            prototypes: HashMap::new(),
            problems: vec![],
            params: vec![],
            returns: vec![],
            stack_bytes: 0,
            origin: 0,
            carry: None,
            constants: HashMap::new(),
            scopes: vec![HashMap::new()],
            declared: HashMap::new(),
        }
    }

    /// Lowers all statements, collecting problems.
    pub fn lower(&mut self) {
        let function = self.function;
        self.declare_params();
        let body: &'m [Statement<'m>] = function.body.as_deref().unwrap_or(&[]);
        self.survey(body);
        self.scopes.truncate(1);
        let mut source = SourceLine::default();
        for (index, statement) in body.iter().enumerate() {
            match statement {
                Statement::Line(line) => source = *line,
                Statement::Label(name) => {
                    if let Some(label) = self.label_names.get(name) {
                        self.labels[*label as usize] = self.drafts.len();
                    }
                }
                Statement::Instruction(instruction) => self.instruction(instruction, source),
                statement => {
                    if let Err(problem) = self.declare(index, statement) {
                        self.problems.push((function.line, problem));
                    }
                }
            }
        }
        // Nothing may run past the end.
        self.push(crate::exec::control::ret(), vec![], vec![]);
        if let Some(last) = self.drafts.last_mut() {
            last.flow = Flow::End;
        }
    }

    fn declare_params(&mut self) {
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

    fn stack_slot(&mut self, variable: &Variable) -> Slot {
        let offset = self.stack_bytes.next_multiple_of(variable.align.max(4));
        let bytes = variable.size().min(1 << 20) as u32;
        self.stack_bytes = offset + bytes;
        Slot { offset, bytes }
    }

    /// A first pass that numbers registers and labels, and counts how often each register is written.
    fn survey(&mut self, body: &'m [Statement<'m>]) {
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
    }

    fn count_definitions(&mut self, operand: &Operand<'m>) {
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

    fn bind(&mut self, name: &'m str, symbol: Symbol) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, symbol);
        }
    }

    fn declare(&mut self, index: usize, statement: &'m Statement<'m>) -> Result<(), Problem> {
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
        super::function_address(self.module, name).map(Symbol::Fixed)
    }

    /// A fresh register.
    pub fn temporary(&mut self, bits: u32) -> Reg {
        self.regs.push(RegInfo { bits, defs: 1, alias: None, constant: None, temporary: true });
        self.regs.len() as Reg - 1
    }

    /// The register that holds a constant.
    pub fn constant(&mut self, source: Source, bits: u32) -> Reg {
        if let Some(reg) = self.constants.get(&(source, bits)) {
            return *reg;
        }
        self.regs.push(RegInfo { bits, defs: 1, alias: None, constant: Some(source), temporary: false });
        let reg = self.regs.len() as Reg - 1;
        self.constants.insert((source, bits), reg);
        reg
    }

    /// The register that holds these bits.
    pub fn bits(&mut self, value: u64, bits: u32) -> Reg {
        let value = if bits < 64 { value & ((1 << bits) - 1) } else { value };
        self.constant(Source::Bits(value), bits)
    }

    /// Adds an instruction.
    pub fn push(&mut self, run: OpFn, defs: Vec<Reg>, uses: Vec<Reg>) -> &mut Draft {
        self.drafts.push(Draft {
            run,
            defs,
            uses,
            imm: 0,
            aux: 0,
            guard: None,
            origin: self.origin,
            flow: Flow::Next,
            observed: false,
        });
        let last = self.drafts.len() - 1;
        &mut self.drafts[last]
    }

    /// Registers a memory instruction for the observers and for its cache of bounds.
    pub fn site(&mut self, site: MemorySite) -> u32 {
        self.program.sites.push(site);
        self.program.sites.len() as u32 - 1
    }

    /// The label's number.
    pub fn label(&self, name: &str) -> Result<u32, Problem> {
        self.label_names.get(name).copied().ok_or_else(|| format!("there is no label {name}"))
    }

    /// A register by name.
    pub fn register(&self, name: &str) -> Result<Reg, Problem> {
        match self.lookup(name) {
            Some(Symbol::Reg(reg)) => Ok(reg),
            _ => Err(format!("{name} is not a register")),
        }
    }

    /// Reads a source operand as a value of a type.
    pub fn source(&mut self, operand: &Operand<'m>, ty: ScalarType) -> Result<Reg, Problem> {
        let bits = register_bits(ty);
        match operand {
            Operand::Int(value) if bits == 1 => Ok(self.bits(u64::from(*value != 0), 1)),
            Operand::Int(value) => {
                // An integer literal for a float type would be its value, not its bits; nvcc writes none.
                if matches!(ty.kind, Kind::Float | Kind::BFloat) && *value != 0 {
                    return Err(format!("integer literal {value} where a float is needed"));
                }
                Ok(self.bits(*value, bits))
            }
            Operand::F32(value) if bits == 32 => Ok(self.bits(u64::from(*value), bits)),
            Operand::F32(value) => Ok(self.bits(f64::from(f32::from_bits(*value)).to_bits(), bits)),
            Operand::F64(value) if bits == 64 => Ok(self.bits(*value, bits)),
            Operand::F64(value) => Ok(self.bits(u64::from((f64::from_bits(*value) as f32).to_bits()), bits)),
            Operand::Not(name) if bits == 1 => {
                let reg = self.register(name)?;
                let not = self.temporary(1);
                self.push(map!(|a: bool| -> bool { !a }), vec![not], vec![reg]);
                Ok(not)
            }
            Operand::Component(name, component) => self.special(name, Some(component), bits),
            Operand::Offset(name, offset) => self.address_of(name, *offset, bits),
            Operand::Name(name) => match self.lookup(name) {
                Some(Symbol::Reg(reg)) => self.fit(reg, bits, name),
                Some(_) => self.address_of(name, 0, bits),
                None => self.special(name, None, bits),
            },
            operand => Err(format!("operand {operand:?} is no value")),
        }
    }

    /// A register as one of this width: wider ones are cut.
    fn fit(&mut self, reg: Reg, bits: u32, name: &str) -> Result<Reg, Problem> {
        let have = self.regs[reg as usize].bits;
        if have == bits {
            return Ok(reg);
        }
        let run = match (have, bits) {
            (32, 16) => map!(|a: u32| -> u16 { a as u16 }),
            (64, 16) => map!(|a: u64| -> u16 { a as u16 }),
            (64, 32) => map!(|a: u64| -> u32 { a as u32 }),
            _ => return Err(format!("{name} has {have} bits where {bits} are needed")),
        };
        let cut = self.temporary(bits);
        self.push(run, vec![cut], vec![reg]);
        Ok(cut)
    }

    /// Runs an operation whose result goes to an operand: into the register itself, or through a temporary where the
    /// register is wider than the type.
    pub fn store_result(
        &mut self,
        operand: &Operand<'m>,
        ty: ScalarType,
        emit: impl FnOnce(&mut Self, Reg),
    ) -> Result<(), Problem> {
        let bits = register_bits(ty);
        let Operand::Name(name) = operand else {
            return Err(format!("operand {operand:?} cannot be written"));
        };
        if *name == "_" {
            let unused = self.temporary(bits);
            emit(self, unused);
            return Ok(());
        }
        let reg = self.register(name)?;
        let have = self.regs[reg as usize].bits;
        if have == bits {
            emit(self, reg);
            return Ok(());
        }
        let signed = ty.kind == Kind::Signed;
        let run = match (bits, have, signed) {
            (16, 32, false) => map!(|a: u16| -> u32 { u32::from(a) }),
            (16, 32, true) => map!(|a: i16| -> i32 { i32::from(a) }),
            (16, 64, false) => map!(|a: u16| -> u64 { u64::from(a) }),
            (16, 64, true) => map!(|a: i16| -> i64 { i64::from(a) }),
            (32, 64, false) => map!(|a: u32| -> u64 { u64::from(a) }),
            (32, 64, true) => map!(|a: i32| -> i64 { i64::from(a) }),
            _ => return Err(format!("{name} has {have} bits where {bits} are needed")),
        };
        let narrow = self.temporary(bits);
        emit(self, narrow);
        self.push(run, vec![reg], vec![narrow]);
        Ok(())
    }

    /// The address of a variable as a value.
    fn address_of(&mut self, name: &str, offset: i64, bits: u32) -> Result<Reg, Problem> {
        let offset = offset as u64;
        match self.lookup(name) {
            Some(Symbol::Fixed(address)) => Ok(self.bits(address.wrapping_add(offset), bits)),
            Some(Symbol::Stack(slot)) => {
                let source = Source::Local { offset: slot.offset.wrapping_add(offset as u32) };
                Ok(self.constant(source, bits))
            }
            Some(Symbol::Param(slot)) => {
                let address = crate::exec::site::PARAM_WINDOW + u64::from(slot.offset);
                Ok(self.bits(address.wrapping_add(offset), bits))
            }
            _ => Err(format!("{name} is not declared")),
        }
    }

    /// A special register.
    fn special(&mut self, name: &str, component: Option<&str>, bits: u32) -> Result<Reg, Problem> {
        let axis = match component {
            Some("x") => 0,
            Some("y") => 1,
            Some("z") => 2,
            None => 3,
            Some(other) => return Err(format!("{name} has no component {other}")),
        };
        let special = match (name, axis) {
            ("%tid", 0..3) => Special::Tid(axis),
            ("%ntid", 0..3) => Special::Ntid(axis),
            ("%ctaid", 0..3) => Special::Ctaid(axis),
            ("%nctaid", 0..3) => Special::Nctaid(axis),
            ("%laneid", 3) => Special::LaneId,
            ("%warpid", 3) => Special::WarpId,
            ("%nwarpid", 3) => Special::WarpCount,
            ("%smid", 3) => Special::SmId,
            ("%nsmid", 3) => Special::SmCount,
            ("%gridid", 3) => Special::GridId,
            ("%lanemask_eq", 3) => Special::MaskEqual,
            ("%lanemask_le", 3) => Special::MaskLessEqual,
            ("%lanemask_lt", 3) => Special::MaskLess,
            ("%lanemask_ge", 3) => Special::MaskGreaterEqual,
            ("%lanemask_gt", 3) => Special::MaskGreater,
            ("%dynamic_smem_size", 3) => Special::DynamicShared,
            ("%total_smem_size", 3) => Special::TotalShared,
            ("WARP_SZ", 3) => return Ok(self.bits(32, bits)),
            ("%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" | "%globaltimer_hi", 3) => {
                let ticks = self.temporary(64);
                self.push(crate::exec::control::clock(), vec![ticks], vec![]);
                if name.ends_with("_hi") {
                    let high = self.temporary(64);
                    self.push(map!(|a: u64| -> u64 { a >> 32 }), vec![high], vec![ticks]);
                    return self.fit(high, bits, name);
                }
                return self.fit(ticks, bits, name);
            }
            ("%envreg1", 3) => Special::Workspace { high: true },
            ("%envreg2", 3) => Special::Workspace { high: false },
            // The other environment registers hold whatever the driver put there: nothing.
            (name, 3) if name.starts_with("%envreg") => return Ok(self.bits(0, bits)),
            _ => {
                return Err(format!("{name} is neither a declared name nor a special register that cusim has"));
            }
        };
        Ok(self.constant(Source::Special(special), bits))
    }

    /// Lowers one instruction, or notes why not.
    fn instruction(&mut self, instruction: &'m Instruction<'m>, source: SourceLine) {
        self.origin = self.program.origins.len() as u32;
        let text = describe(instruction);
        let work = super::work::classify(instruction.opcode);
        self.program.origins.push(Origin { ptx_line: instruction.line, source, text, work });
        let start = self.drafts.len();
        let guard = match instruction.guard.map(|(negated, name)| Ok::<_, Problem>((self.register(name)?, negated))) {
            None => None,
            Some(Ok(guard)) => Some(guard),
            Some(Err(problem)) => {
                self.problems.push((instruction.line, problem));
                return;
            }
        };
        if let Err(problem) = super::instruction::lower(self, instruction, guard.is_some()) {
            self.problems.push((instruction.line, format!("{}: {problem}", instruction.opcode)));
            return;
        }
        if guard.is_some() {
            self.drafts[start..].iter_mut().for_each(|draft| draft.guard = guard);
        }
    }
}

/// An instruction's opcode and operands, for reports.
fn describe(instruction: &Instruction) -> String {
    instruction.opcode.to_string()
}
