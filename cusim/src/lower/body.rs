//! Lowering of one function: names, registers, constants, labels.

mod names;
mod operands;

use std::collections::HashMap;

use super::draft::{Draft, Flow, Reg, RegInfo};
use super::exchange::Seeds;
use super::problem::Problem;
use super::reach::Reached;
use crate::exec::op::OpFn;
use crate::exec::program::{Program, Slot, Source};
use crate::machine::access::MemorySite;
use crate::ptx::{Function, Module, ScalarType};

/// What lowering adds for those who watch the program run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keep instructions that could be resolved beforehand, so that every PTX instruction is counted.
    pub keep_moves: bool,
    /// Show memory accesses and barriers to the checks and counters.
    pub observe: bool,
}

/// Addresses of a module's variables in device memory.
pub type Globals = HashMap<String, u64>;

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
}
