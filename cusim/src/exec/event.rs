//! What an instruction may ask of the scheduler.

use crate::machine::Mask;
use crate::machine::barrier::Arrival;
use crate::machine::fault::Fault;

/// Why an operation left the straight path.
pub enum Event {
    /// Nothing yet.
    None,
    /// All running lanes go on at [`super::core::Core::target`].
    Jump,
    /// These lanes go on at the target, the others with the next instruction.
    Branch(Mask),
    /// Lanes go on at different places.
    Scatter(Box<[u32; 32]>),
    /// The lanes touch memory in different places: the instruction is to be run lane by lane.
    Apart,
    /// The running lanes end.
    Exit,
    /// Call of a function.
    Call(Box<Call>),
    /// Return from a function; from a kernel, its end.
    Return,
    /// The running lanes wait at a barrier of the block.
    Barrier(Arrival),
    /// The running lanes wait until the other lanes of their masks come to this instruction, which then runs again.
    Converge,
    /// Other warps should have a turn.
    Yield,
    /// The program did something that ends the launch.
    Fault(Box<Fault>),
}

/// A call: for each lane, which function; and where arguments and results lie.
pub struct Call {
    /// Function per lane, index into the program's functions.
    pub targets: [u32; 32],
    /// Index of the call site.
    pub site: u32,
}
