//! What is known of an allocation.

/// What an allocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocationKind {
    /// `cuMemAlloc`.
    Device,
    /// `cuMemAllocAsync` and from pools.
    Async,
    /// `cuMemHostAlloc`.
    Pinned,
    /// `cuMemAllocManaged`.
    Managed,
    /// A variable of a module.
    Module,
    /// `cuMemHostRegister`: the host program's own.
    Registered,
}

impl AllocationKind {
    /// Whether it is the host's memory, which its own code reads and writes without anything here seeing it.
    pub fn is_of_the_host(self) -> bool {
        matches!(self, Self::Pinned | Self::Registered)
    }
}

/// An allocation.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// First address.
    pub start: u64,
    /// Bytes asked for.
    pub bytes: u64,
    /// What it is.
    pub kind: AllocationKind,
    /// Device that it belongs to.
    pub device: u32,
    /// Counted from 1.
    pub number: u64,
    /// Who asked for it.
    pub origin: String,
    /// Whether kernels may only read it.
    pub read_only: bool,
    /// Whether it was freed.
    pub freed: bool,
}

impl Allocation {
    /// How reports call it.
    pub fn describe(&self) -> String {
        let kind = match self.kind {
            AllocationKind::Device => "cuMemAlloc",
            AllocationKind::Async => "cuMemAllocAsync",
            AllocationKind::Pinned => "cuMemHostAlloc",
            AllocationKind::Managed => "cuMemAllocManaged",
            AllocationKind::Module => "module variable",
            AllocationKind::Registered => "cuMemHostRegister",
        };
        let freed = if self.freed { ", freed" } else { "" };
        format!("allocation #{} of {} bytes ({kind}{}{freed})", self.number, self.bytes, self.origin)
    }
}

/// Why memory cannot be freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FreeError {
    /// It was freed before.
    Twice(String),
    /// No allocation begins there.
    Unknown(String),
}
