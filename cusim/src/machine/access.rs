//! Accesses to memory.

use super::{LANES, Mask};
use crate::ptx::Space;

/// What a memory instruction does, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySite {
    /// The space that the instruction names.
    pub space: Space,
    /// Bytes per lane.
    pub bytes: u32,
    /// What it does there.
    pub access: AccessKind,
    /// Values per lane.
    pub values: u8,
    /// Which operand holds the address.
    pub address: u8,
    /// Whether the address is 64 bits wide.
    pub wide: bool,
    /// Whether it orders what other threads did before.
    pub meets: Meets,
    /// Lanes whose addresses count: all, except for matrices of fewer rows.
    pub lanes: u32,
    /// The PTX instruction.
    pub origin: u32,
}

/// How an access orders others, as its `.acquire`, `.release` or `.acq_rel` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meets {
    /// What others did before they released at this place happened before what the thread does next.
    pub acquires: bool,
    /// What the thread did happened before what others do after they acquired at this place.
    pub releases: bool,
}

impl Meets {
    /// What a modifier of an instruction says.
    pub fn of(modifier: Option<&str>) -> Self {
        Self {
            acquires: matches!(modifier, Some("acquire" | "acq_rel")),
            releases: matches!(modifier, Some("release" | "acq_rel")),
        }
    }
}

/// What a memory instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Plain read.
    Load,
    /// Plain write.
    Store,
    /// Read that other threads may write at the same time: volatile, relaxed, acquire.
    StrongLoad,
    /// Write that other threads may read at the same time.
    StrongStore,
    /// Read-modify-write.
    Atomic,
    /// Read by all lanes of a warp together, such as `ldmatrix`.
    MatrixLoad,
    /// Write by all lanes of a warp together.
    MatrixStore,
    /// Asynchronous copy: reads here and writes elsewhere later.
    AsyncCopy,
    /// The reading end of an asynchronous copy whose third operand says how many bytes each lane reads.
    PartialCopy,
}

impl AccessKind {
    /// Whether it only writes, where its address points.
    pub fn stores(self) -> bool {
        matches!(self, AccessKind::Store | AccessKind::StrongStore | AccessKind::MatrixStore)
    }
}

/// A warp's access as observers see it.
pub struct Seen<'a> {
    /// The instruction.
    pub site: &'a MemorySite,
    /// Its number.
    pub index: u32,
    /// Number of the warp.
    pub warp: u32,
    /// Lanes that took part.
    pub mask: Mask,
    /// Their addresses.
    pub addresses: &'a [u64; LANES],
    /// Bytes that each lane accessed.
    pub bytes: u32,
}

/// A copy of a warp that was started.
#[derive(Clone)]
pub struct Copy {
    /// Lanes whose bytes are under way.
    pub lanes: Mask,
    /// Lanes' sources on the host.
    pub source: [u64; LANES],
    /// Lanes' destinations: offsets in shared memory.
    pub target: [u32; LANES],
    /// Bytes to write.
    pub bytes: u32,
    /// Bytes to read; the rest is zero.
    pub read: [u32; LANES],
    /// Group it was committed to, counted per lane; 0 while it is not.
    pub group: u32,
    /// The instruction that started it.
    pub origin: u32,
}
