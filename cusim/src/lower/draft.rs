//! Instructions on virtual registers, before these get a place.

use crate::exec::op::OpFn;

/// A virtual register.
pub type Reg = u32;

/// Where control goes after an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next one.
    Next,
    /// To a label.
    Jump(u32),
    /// To a label or to the next one.
    Branch(u32),
    /// To one of these labels.
    Table(Vec<u32>),
    /// Nowhere.
    End,
}

/// An instruction on virtual registers.
#[derive(Clone)]
pub struct Draft {
    /// The operation.
    pub run: OpFn,
    /// Registers that it writes.
    pub defs: Vec<Reg>,
    /// Registers that it reads.
    pub uses: Vec<Reg>,
    /// See [`crate::exec::op::Inst::imm`].
    pub imm: u64,
    /// See [`crate::exec::op::Inst::aux`].
    pub aux: u32,
    /// Register and whether it is negated.
    pub guard: Option<(Reg, bool)>,
    /// The PTX instruction.
    pub origin: u32,
    /// Where control goes.
    pub flow: Flow,
    /// Whether checks and counters want to see it.
    pub observed: bool,
}

/// What is known of a virtual register.
#[derive(Clone, Debug)]
pub struct RegInfo {
    /// 1, 16, 32 or 64.
    pub bits: u32,
    /// Number of instructions that write it.
    pub defs: u32,
    /// Holds the same as another.
    pub alias: Option<Reg>,
    /// Is filled on entry.
    pub constant: Option<crate::exec::program::Source>,
    /// Made by lowering within one instruction.
    pub temporary: bool,
}
