//! Address spaces: where each begins, and the bounds that accesses keep to.

use super::fault::FaultKind;

/// Generic addresses of shared memory begin here.
pub const SHARED_WINDOW: u64 = 0x0100_0000_0000;
/// Generic addresses of local memory begin here.
pub const LOCAL_WINDOW: u64 = 0x0200_0000_0000;
/// Generic addresses of kernel parameters begin here.
pub const PARAM_WINDOW: u64 = 0x0300_0000_0000;
/// Size of each window.
pub const WINDOW_SIZE: u64 = 1 << 32;
/// The first address in use within shared and local memory, so that a null pointer is an error there too.
pub const FIRST_OFFSET: u32 = 1024;

/// State spaces as const parameters of the memory operations.
pub mod space {
    /// Device memory and constants.
    pub const GLOBAL: u8 = 0;
    /// Shared memory, addressed by 32-bit offsets.
    pub const SHARED: u8 = 1;
    /// Local memory, addressed by 32-bit offsets.
    pub const LOCAL: u8 = 2;
    /// Any, told apart by the address.
    pub const GENERIC: u8 = 3;
}

/// Where an address of a space is found on the host: at `address + base + lane * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In device or host memory, at a fixed distance.
    Fixed(u64),
    /// In the block's shared memory; the distance of the window.
    Shared(u64),
    /// In the lane's local memory; the distance of the window.
    Local(u64),
}

/// Bounds that an instruction's last accesses kept to.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// First valid address.
    pub low: u64,
    /// End of the valid addresses.
    pub high: u64,
    /// Where they are.
    pub place: Place,
}

impl Site {
    /// Bounds that nothing keeps to.
    pub const EMPTY: Self = Self { low: 1, high: 0, place: Place::Fixed(0) };
}

/// What makes an access invalid.
pub struct Invalid {
    /// Kind of fault.
    pub kind: FaultKind,
    /// What else there is to say.
    pub detail: String,
}
