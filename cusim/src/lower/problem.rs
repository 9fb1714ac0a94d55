//! Why an instruction cannot be lowered.

use crate::exec::opcode::Opcode;
use crate::ptx::Operand;

/// Why an instruction cannot be lowered.
pub type Problem = String;

/// What most problems boil down to.
pub const UNKNOWN: &str = "cusim does not know this instruction";

/// What is wrong with kernels that use textures or surfaces.
pub const NO_TEXTURES: &str = "cusim has no textures and no surfaces";

/// Checks the number of operands.
pub fn expect(operands: &[Operand], count: usize) -> Result<(), Problem> {
    if operands.len() == count {
        return Ok(());
    }
    Err(format!("{} operands where {count} are needed", operands.len()))
}

/// Fails if modifiers are left over.
pub fn finish(opcode: &Opcode) -> Result<(), Problem> {
    if opcode.is_done() { Ok(()) } else { Err(UNKNOWN.into()) }
}
