//! Filling a frame's constant registers.

use super::core::Lane;
use super::program::{Constant, FunctionCode, Source, Special};
use crate::machine::Mask;

/// What special registers and parameters of a warp are made of.
pub struct Surroundings<'a> {
    /// Threads per block.
    pub block_size: [u32; 3],
    /// Blocks in the grid.
    pub grid_size: [u32; 3],
    /// This block's place in the grid.
    pub block_index: [u32; 3],
    /// Number of the warp.
    pub warp: u32,
    /// The kernel's parameters.
    pub params: &'a [u8],
    /// Dynamic shared memory.
    pub dynamic_shared: u32,
    /// All shared memory.
    pub total_shared: u32,
    /// Number of the launch.
    pub grid_id: u64,
    /// Memory that the blocks of a cooperative grid meet in.
    pub workspace: u64,
    /// Multiprocessors of the device.
    pub multiprocessors: u32,
    /// Start of the function's stack frame in local memory.
    pub local_base: u32,
}

/// Which constants to fill.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// Those that differ between blocks of a launch.
    Block,
}

/// Fills the constant registers of a frame in the lanes of `mask`.
///
/// # Safety
/// `regs` must point to a frame of this function.
pub unsafe fn fill(regs: *mut u8, function: &FunctionCode, around: &Surroundings, mask: Mask, scope: Scope) {
    for constant in &function.constants {
        let per_block =
            matches!(constant.source, Source::Special(Special::Ctaid(_) | Special::SmId) | Source::Undefined);
        if scope == Scope::Block && !per_block {
            continue;
        }
        // SAFETY: lowering laid the constants out inside the frame.
        unsafe { fill_one(regs, constant, around, mask) };
    }
}

unsafe fn fill_one(regs: *mut u8, constant: &Constant, around: &Surroundings, mask: Mask) {
    let values = values(constant.source, around);
    // SAFETY: the caller's frame has a register of this width here.
    unsafe {
        match constant.bits {
            1 => bool::write(regs, constant.slot, mask, values.map(|value| value & 1 != 0)),
            16 => u16::write(regs, constant.slot, mask, values.map(|value| value as u16)),
            32 => u32::write(regs, constant.slot, mask, values.map(|value| value as u32)),
            _ => u64::write(regs, constant.slot, mask, values),
        }
    }
}

/// The lanes' values of a constant.
fn values(source: Source, around: &Surroundings) -> [u64; 32] {
    match source {
        Source::Bits(bits) => [bits; 32],
        Source::Undefined => [0; 32],
        Source::Local { offset } => [u64::from(around.local_base + offset); 32],
        Source::Param { offset, bytes, signed } => {
            let mut raw = [0; 8];
            let start = offset as usize;
            if let Some(slice) = around.params.get(start..start + bytes as usize) {
                raw[..slice.len()].copy_from_slice(slice);
            }
            let value = u64::from_le_bytes(raw);
            let spare = 64 - 8 * bytes;
            [if signed { ((value << spare) as i64 >> spare) as u64 } else { value }; 32]
        }
        Source::Special(special) => std::array::from_fn(|lane| special_value(special, around, lane as u32)),
    }
}

fn special_value(special: Special, around: &Surroundings, lane: u32) -> u64 {
    let [width, height, _] = around.block_size;
    let thread = around.warp * 32 + lane;
    let block_number = || {
        let [x, y, z] = around.block_index.map(u64::from);
        let [nx, ny, _] = around.grid_size.map(u64::from);
        (z * ny + y) * nx + x
    };
    let threads = around.block_size.iter().product::<u32>();
    u64::from(match special {
        Special::Tid(0) => thread % width,
        Special::Tid(1) => thread / width % height,
        Special::Tid(_) => thread / width / height,
        Special::Ntid(axis) => around.block_size[axis as usize],
        Special::Ctaid(axis) => around.block_index[axis as usize],
        Special::Nctaid(axis) => around.grid_size[axis as usize],
        Special::LaneId => lane,
        Special::WarpId => around.warp,
        Special::WarpCount => threads.div_ceil(32),
        Special::SmId => (block_number() % u64::from(around.multiprocessors)) as u32,
        Special::SmCount => around.multiprocessors,
        Special::GridId => return around.grid_id,
        Special::MaskEqual => 1 << lane,
        Special::MaskLessEqual => u32::MAX >> (31 - lane),
        Special::MaskLess => (1 << lane) - 1,
        Special::MaskGreaterEqual => u32::MAX << lane,
        Special::MaskGreater => u32::MAX << lane & !(1 << lane),
        Special::DynamicShared => around.dynamic_shared,
        Special::TotalShared => around.total_shared,
        Special::Workspace { high: true } => (around.workspace >> 32) as u32,
        Special::Workspace { high: false } => around.workspace as u32,
    })
}
