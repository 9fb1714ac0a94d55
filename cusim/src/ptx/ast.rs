//! The syntax tree. Names are slices of the text.

use std::sync::Arc;

use super::{Kind, ScalarType, Space};

/// A PTX text.
#[derive(Debug, Default)]
pub struct Module<'a> {
    /// `.version` as (major, minor).
    pub version: (u32, u32),
    /// `.target`'s first entry, such as `sm_80`.
    pub target: &'a str,
    /// Variables at module scope.
    pub variables: Vec<Variable<'a>>,
    /// Kernels, functions and declarations of functions.
    pub functions: Vec<Function<'a>>,
    /// `.file` directives: number and path.
    pub files: Vec<(u32, &'a str)>,
}

/// One element of a variable's initialiser.
#[derive(Debug, Clone, PartialEq)]
pub enum InitItem<'a> {
    /// Bits of a value of the variable's type.
    Value(u64),
    /// Address of a symbol plus an offset.
    Address {
        /// The symbol.
        name: &'a str,
        /// Added to it.
        offset: i64,
        /// Whether the generic address is meant.
        generic: bool,
        /// With `0xFF(name)`, which byte of the address: its shift in bits.
        byte_shift: Option<u32>,
    },
}

/// A variable or parameter.
#[derive(Debug, Clone)]
pub struct Variable<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it lives.
    pub space: Space,
    /// Type of an element.
    pub ty: ScalarType,
    /// Alignment in bytes.
    pub align: u32,
    /// Number of elements; 0 where the array has no size.
    pub count: u64,
    /// Whether it is an array.
    pub is_array: bool,
    /// Whether it is defined elsewhere.
    pub is_extern: bool,
    /// Leading elements' values; the rest is zero.
    pub init: Vec<InitItem<'a>>,
    /// Line of the declaration.
    pub line: u32,
}

impl Variable<'_> {
    /// Whether it is a texture, sampler or surface.
    pub fn is_texture(&self) -> bool {
        self.ty.kind == Kind::Texture
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.count.saturating_mul(u64::from(self.ty.bytes()))
    }
}

/// What a kernel promises or asks about its launches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerfHints {
    /// `.maxntid`.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqntid`.
    pub required_threads: Option<[u32; 3]>,
    /// `.minnctapersm`.
    pub min_blocks: Option<u32>,
    /// `.maxnreg`.
    pub max_registers: Option<u32>,
}

/// A kernel or a function.
#[derive(Debug, Default)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is a kernel.
    pub is_kernel: bool,
    /// Return parameters.
    pub returns: Vec<Variable<'a>>,
    /// Parameters.
    pub params: Vec<Variable<'a>>,
    /// Its statements; `None` for a declaration.
    pub body: Option<Vec<Statement<'a>>>,
    /// Performance directives.
    pub hints: PerfHints,
    /// Line of its name.
    pub line: u32,
}

/// A line of the source that the PTX was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct SourceLine {
    /// Number of a `.file` directive; 0 if unknown.
    pub file: u32,
    /// Line in it.
    pub line: u32,
}

/// A statement of a body.
#[derive(Debug)]
pub enum Statement<'a> {
    /// Registers: a prefix and, for `%r<9>`, how many.
    Registers {
        /// Name or prefix.
        name: &'a str,
        /// Number of them, if the name is a prefix.
        count: Option<u32>,
        /// Their type.
        ty: ScalarType,
    },
    /// A variable of this function.
    Variable(Variable<'a>),
    /// A jump target.
    Label(&'a str),
    /// The following instructions come from here.
    Line {
        /// The line itself.
        line: SourceLine,
        /// Where the function that it belongs to was inlined, and where that one was, and so on.
        callers: Arc<[SourceLine]>,
    },
    /// `{`
    ScopeOpen,
    /// `}`
    ScopeClose,
    /// A list of labels, for `brx.idx`.
    Targets {
        /// Its name.
        name: &'a str,
        /// The labels.
        labels: Vec<&'a str>,
    },
    /// A prototype for indirect calls.
    Prototype {
        /// Its name.
        name: &'a str,
        /// Return parameters.
        returns: Vec<Variable<'a>>,
        /// Parameters.
        params: Vec<Variable<'a>>,
    },
    /// An instruction.
    Instruction(Instruction<'a>),
}

/// An instruction.
#[derive(Debug, Clone)]
pub struct Instruction<'a> {
    /// Guard: negated?, register.
    pub guard: Option<(bool, &'a str)>,
    /// The opcode with its modifiers, as written.
    pub opcode: &'a str,
    /// The operands.
    pub operands: Vec<Operand<'a>>,
    /// Line of the PTX text.
    pub line: u32,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand<'a> {
    /// Register, variable, label or function.
    Name(&'a str),
    /// Name with a component, such as `%tid.x`.
    Component(&'a str, &'a str),
    /// `!%p`
    Not(&'a str),
    /// Integer, as 64 bits in two's complement.
    Int(u64),
    /// Bits of a 32-bit float.
    F32(u32),
    /// Bits of a 64-bit float.
    F64(u64),
    /// `name+offset` outside brackets.
    Offset(&'a str, i64),
    /// `[base+offset]`, the base absent for an absolute address.
    Address(Option<&'a str>, i64),
    /// `[a, {b, c}]`, a place in a texture, surface or tensor.
    Element(Vec<Operand<'a>>),
    /// `{a, b}`
    Vector(Vec<Operand<'a>>),
    /// `a|b`
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// `(a, b)`, the arguments of a call.
    List(Vec<Operand<'a>>),
}
