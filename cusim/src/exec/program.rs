//! A kernel ready to run: its code, that of all functions it may call, and what it needs of a block.

use super::op::Inst;
use crate::machine::access::AccessKind;
use crate::machine::listing::Listing;
use crate::machine::names::readable;
use crate::ptx::{PerfHints, Space};

/// A register that is filled when a function is entered.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// Its offset in the frame.
    pub slot: u32,
    /// Its bits: 1, 16, 32 or 64.
    pub bits: u32,
    /// What goes in.
    pub source: Source,
}

/// What a constant register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// These bits in all lanes.
    Bits(u64),
    /// Zero, for a register that some path reads before it is written.
    Undefined,
    /// Bytes of the kernel's parameters.
    Param {
        /// Where they begin.
        offset: u32,
        /// How many.
        bytes: u32,
        /// Whether they extend by their sign.
        signed: bool,
    },
    /// A special register.
    Special(Special),
    /// Address of a local variable: its offset in the function's stack frame.
    Local {
        /// Offset in the frame.
        offset: u32,
    },
}

/// Special registers that keep their value while a block runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// `%tid`
    Tid(u8),
    /// `%ntid`
    Ntid(u8),
    /// `%ctaid`
    Ctaid(u8),
    /// `%nctaid`
    Nctaid(u8),
    /// `%laneid`
    LaneId,
    /// `%warpid`
    WarpId,
    /// `%nwarpid`
    WarpCount,
    /// `%smid`
    SmId,
    /// `%nsmid`
    SmCount,
    /// `%gridid`
    GridId,
    /// `%lanemask_eq`
    MaskEqual,
    /// `%lanemask_le`
    MaskLessEqual,
    /// `%lanemask_lt`
    MaskLess,
    /// `%lanemask_ge`
    MaskGreaterEqual,
    /// `%lanemask_gt`
    MaskGreater,
    /// `%dynamic_smem_size`
    DynamicShared,
    /// `%total_smem_size`
    TotalShared,
    /// `%envreg1` and `%envreg2`: the upper and lower half of the address where the blocks of a cooperative grid meet.
    Workspace {
        /// Whether the upper half is meant.
        high: bool,
    },
}

/// A parameter's or argument's place in a stack frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Offset in the frame of local memory.
    pub offset: u32,
    /// Its bytes.
    pub bytes: u32,
}

/// A function of a program; the first is the kernel.
#[derive(Clone, Debug, Default)]
pub struct FunctionCode {
    /// Its name.
    pub name: String,
    /// Index of its first instruction.
    pub entry: u32,
    /// Bytes of registers.
    pub register_bytes: u32,
    /// Bytes of local memory.
    pub local_bytes: u32,
    /// Registers to fill on entry.
    pub constants: Vec<Constant>,
    /// Parameters, in order.
    pub params: Vec<Slot>,
    /// Return parameters, in order.
    pub returns: Vec<Slot>,
}

/// A call site: where the caller keeps arguments and wants results.
#[derive(Clone, Debug, Default)]
pub struct CallSite {
    /// Arguments, in order.
    pub args: Vec<Slot>,
    /// Results, in order.
    pub results: Vec<Slot>,
}

/// A kernel ready to run.
#[derive(Debug, Default)]
pub struct Program {
    /// What those see of it who watch it run.
    pub listing: Listing,
    /// The instructions of all functions.
    pub code: Vec<Inst>,
    /// Operands beyond the sixth.
    pub operands: Vec<u32>,
    /// The functions; the kernel first.
    pub functions: Vec<FunctionCode>,
    /// Call sites.
    pub calls: Vec<CallSite>,
    /// Targets of indexed branches.
    pub tables: Vec<Vec<u32>>,
    /// Bytes of the kernel's parameters.
    pub param_bytes: u32,
    /// The kernel's parameters: offset and size.
    pub params: Vec<Slot>,
    /// Performance directives.
    pub hints: PerfHints,
    /// Addresses of device functions in code, for indirect calls: the index of the function.
    pub function_addresses: Vec<(u64, u32)>,
    /// Bytes of registers that a warp needs, calls included.
    pub register_bytes: u32,
    /// Whether the results depend on the order in which blocks run: float atomics, atomics whose old value is used,
    /// and memory that blocks use to wait for each other.
    pub order_sensitive: bool,
    /// Whether it allocates or frees memory.
    pub uses_heap: bool,
    /// Whether blocks may wait for each other: some instruction reads memory that others write meanwhile.
    pub may_wait: bool,
    /// Registers per thread as an optimising compiler would need about.
    pub registers: u32,
    /// The architecture that its PTX is for, as `.target` says.
    pub target: u32,
}

impl Program {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        &self.listing.name
    }

    /// The kernel's name as people write it.
    pub fn readable_name(&self) -> String {
        readable(&self.listing.name)
    }

    /// Whether blocks may order what they do to device memory: through atomics, volatile accesses and so on.
    pub fn blocks_meet(&self) -> bool {
        self.may_wait
            || self.listing.sites.iter().any(|site| {
                let strong =
                    matches!(site.access, AccessKind::Atomic | AccessKind::StrongLoad | AccessKind::StrongStore);
                strong && !matches!(site.space, Space::Shared | Space::Local)
            })
    }

    /// The function that an instruction belongs to.
    pub fn function_of(&self, pc: u32) -> &FunctionCode {
        let after = self.functions.partition_point(|function| function.entry <= pc);
        &self.functions[after.saturating_sub(1)]
    }
}

impl std::fmt::Debug for Inst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inst {{ origin: {}, ops: {:?}, imm: {:#x} }}", self.origin, self.ops, self.imm)
    }
}
