//! What a kernel says of itself: its instructions as written, what they access and what memory it needs.

use std::sync::Arc;

use super::access::MemorySite;
use crate::ptx::SourceLine;

/// Where an instruction came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Line of the PTX text.
    pub ptx_line: u32,
    /// Line of the source.
    pub source: SourceLine,
    /// Where its function was inlined, and where that one was, and so on.
    pub callers: Arc<[SourceLine]>,
    /// The instruction as written.
    pub text: String,
    /// What it counts as.
    pub work: Work,
}

/// What an instruction counts as, per lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Kind of arithmetic.
    pub kind: WorkKind,
    /// Operations per lane; for tensor operations per warp.
    pub amount: u32,
}

/// Kinds of arithmetic that are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkKind {
    /// Moves, control, memory.
    #[default]
    Other,
    /// f32 additions.
    Add32,
    /// f32 multiplications.
    Mul32,
    /// f32 fused multiply-adds, two operations each.
    Fma32,
    /// f32 divisions, roots and approximate functions.
    Special32,
    /// f64 operations.
    Float64,
    /// f16 and bf16 operations outside of the tensor cores.
    Half,
    /// Integer and bit operations.
    Integer,
    /// Tensor operations on f16.
    TensorF16,
    /// Tensor operations on bf16.
    TensorBf16,
    /// Tensor operations on tf32.
    TensorTf32,
    /// Tensor operations on f64.
    TensorF64,
    /// Tensor operations on integers.
    TensorInt,
}

/// A variable in shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedVariable {
    /// Its name.
    pub name: String,
    /// First address.
    pub start: u32,
    /// End.
    pub end: u32,
}

/// Shared memory of a kernel.
#[derive(Clone, Debug, Default)]
pub struct SharedLayout {
    /// The static variables, with gaps between them.
    pub variables: Vec<SharedVariable>,
    /// The part that the system keeps for itself, where the kernel knows of it; empty if not.
    pub reserved: std::ops::Range<u32>,
    /// Where dynamic shared memory begins.
    pub dynamic_start: u32,
    /// Bytes of static shared memory as a real compiler would lay it out.
    pub static_bytes: u32,
}

/// Executed warps and lanes of an instruction, less those of the instruction before it (modulo 2^64): a run of
/// instructions is counted where it begins and where it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executed {
    /// Warps.
    pub warps: u64,
    /// Lanes.
    pub lanes: u64,
}

/// A kernel as those see it who watch it run.
#[derive(Debug, Default)]
pub struct Listing {
    /// The kernel's name.
    pub name: String,
    /// The PTX instructions.
    pub origins: Vec<Origin>,
    /// Paths by `.file` number.
    pub files: Vec<(u32, String)>,
    /// Memory instructions.
    pub sites: Vec<MemorySite>,
    /// Shared memory.
    pub shared: SharedLayout,
    /// Bytes of local memory that a thread needs, calls included.
    pub local_bytes: u32,
}

impl Listing {
    /// A line as `file:line`.
    fn name_of(&self, line: SourceLine) -> Option<String> {
        let (_, path) = self.files.iter().find(|(number, _)| *number == line.file)?;
        Some(format!("{path}:{}", line.line))
    }

    /// An instruction's source line as `file:line`; where a function was inlined, the line of the kernel first.
    pub fn source_of(&self, origin: u32) -> Option<String> {
        let origin = self.origins.get(origin as usize)?;
        let own = self.name_of(origin.source)?;
        match origin.callers.last().and_then(|line| self.name_of(*line)) {
            Some(kernel) => Some(format!("{kernel} (inlined: {own})")),
            None => Some(own),
        }
    }
}
