//! PTX text: its syntax tree and the parser that makes it.

mod ast;
mod parser;
mod scanner;
mod types;

pub use ast::{Function, InitItem, Instruction, Module, Operand, PerfHints, SourceLine, Statement, Variable};
pub use parser::{parse, version};
pub use types::{Kind, ScalarType, Space};

/// A PTX text that cannot be read: what is wrong, and on which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtxError {
    /// Line of the PTX text, counted from 1.
    pub line: u32,
    /// What is wrong there.
    pub message: String,
}

impl std::fmt::Display for PtxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for PtxError {}
