//! What runs the arithmetic, and the few places that need `unsafe`.

mod bus_error;
mod ceilings;
mod choice;
mod clock;
pub mod cpu;
pub mod cuda;
mod mapped_file;
pub mod nvtx;
pub mod switch;

pub use ceilings::Ceilings;
pub use choice::{DeviceChoice, arithmetic_of, describe};
pub use clock::{Clock, Moment};
pub use cuda::Gpu;
pub use mapped_file::MappedFile;
