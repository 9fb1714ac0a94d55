//! What a kernel can do that ends its launch.

use crate::ptx::Space;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// An address outside of every allocation.
    OutOfBounds,
    /// An address inside an allocation that was freed.
    UseAfterFree,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A write to constant memory or to parameters.
    ReadOnly,
    /// `trap`.
    Trap,
    /// A failed `assert`.
    Assert,
    /// A call of something that is no function, or whose signature differs.
    BadCall,
    /// The stack or register space for calls is used up.
    StackOverflow,
    /// Threads wait for each other and none can go on.
    Deadlock,
    /// Lanes of a warp that must come together cannot.
    Divergence,
    /// An operand outside of what the instruction allows.
    BadOperand,
    /// Memory freed by a kernel that was not allocated by one, or freed before.
    BadFree,
}

impl FaultKind {
    /// The code that the CUDA driver reports for it.
    pub fn code(self) -> u32 {
        match self {
            Self::OutOfBounds | Self::UseAfterFree | Self::ReadOnly => 700,
            Self::Misaligned => 716,
            Self::Assert => 710,
            Self::BadCall => 718,
            Self::Trap | Self::StackOverflow | Self::Deadlock | Self::Divergence | Self::BadOperand | Self::BadFree => {
                719
            }
        }
    }

    /// The sanitizer's tool that the fault belongs to.
    pub fn check(self) -> &'static str {
        match self {
            Self::OutOfBounds
            | Self::UseAfterFree
            | Self::Misaligned
            | Self::ReadOnly
            | Self::StackOverflow
            | Self::BadFree => "mem",
            Self::Deadlock | Self::Divergence => "sync",
            Self::Trap | Self::Assert | Self::BadCall | Self::BadOperand => "exec",
        }
    }
}

/// A fault and where it happened.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Index of the PTX instruction.
    pub origin: u32,
    /// The thread in its block; the first, if several are to blame.
    pub lane: u32,
    /// Number of the block.
    pub block: u64,
    /// The memory access, if it was one.
    pub access: Option<Access>,
    /// What else there is to say.
    pub detail: String,
}

/// A memory access that failed.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The address as the program gave it.
    pub address: u64,
    /// Its bytes.
    pub bytes: u32,
    /// The space that the instruction names.
    pub space: Space,
    /// Whether it writes.
    pub write: bool,
}
