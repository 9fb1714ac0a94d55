//! Lowering of one function: names, registers, constants, labels.

mod names;
mod operands;

use std::collections::HashMap;

use super::draft::{Draft, Flow, Reg, RegInfo};
use super::exchange::Seeds;
use super::reach::Reached;
use super::{Globals, Options};
use crate::exec::op::OpFn;
use crate::exec::program::{Program, Slot, Source};
use crate::machine::access::MemorySite;
use crate::machine::listing::Origin;
use crate::ptx::{Function, Instruction, Module, ScalarType, SourceLine, Statement};

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
    pub seeds: Seeds<'m>,
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
            seeds: Seeds::of(function.body.as_deref().unwrap_or(&[])),
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
        self.program.listing.sites.push(site);
        self.program.listing.sites.len() as u32 - 1
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

    /// Lowers one instruction, or notes why not.
    fn instruction(&mut self, instruction: &'m Instruction<'m>, source: SourceLine) {
        self.origin = self.program.listing.origins.len() as u32;
        let text = describe(instruction);
        let work = super::work::classify(instruction.opcode);
        self.program.listing.origins.push(Origin { ptx_line: instruction.line, source, text, work });
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
