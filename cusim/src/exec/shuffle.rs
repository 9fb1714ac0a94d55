//! Shuffles: lanes read each other's registers.

use super::core::Core;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::{LANES, Mask};

/// What a shuffle gives where the source lane takes no part: nothing that could pass for a result.
const UNDEFINED: u32 = 0xffff_ffff;

impl Core {
    /// Lanes that read from lanes which take no part get nothing of use, and are reported.
    #[inline(never)]
    fn lose_inactive(&mut self, inst: &Inst, sources: &[u32; LANES], out: &mut [u32; LANES]) {
        let mut undefined: Mask = 0;
        for lane in 0..LANES {
            if self.mask >> sources[lane] & 1 == 0 {
                out[lane] = UNDEFINED;
                undefined |= 1 << lane;
            }
        }
        if undefined & self.mask != 0 {
            self.report_inactive_sources(inst, undefined & self.mask);
        }
    }

    #[cold]
    fn report_inactive_sources(&mut self, inst: &Inst, lanes: Mask) {
        // SAFETY: the block outlives the run of its warps.
        let block = unsafe { &mut *self.block };
        let warp = self.warp;
        if let Some(mut checks) = block.checks.take() {
            checks.inactive_source(&block.launch().watch, inst.origin, warp * 32 + lanes.trailing_zeros(), lanes);
            block.checks = Some(checks);
        }
    }
}

/// Ways to choose the source lane of a shuffle.
mod mode {
    pub const UP: u8 = 0;
    pub const DOWN: u8 = 1;
    pub const BUTTERFLY: u8 = 2;
    pub const INDEX: u8 = 3;
}

/// `shfl.sync`: `ops` are the value, the predicate, then value, lane, clamp and mask.
struct Shuffle<const MODE: u8>;

impl<const MODE: u8> Op for Shuffle<MODE> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction a 32-bit and a predicate destination and 32-bit sources.
        unsafe {
            let members: [u32; LANES] = core.get(inst.ops[5]);
            if !core.gathered(inst, &members) {
                return true;
            }
            let value: [u32; LANES] = core.get(inst.ops[2]);
            let lanes: [u32; LANES] = core.get(inst.ops[3]);
            let clamps: [u32; LANES] = core.get(inst.ops[4]);
            let mut sources = [0; LANES];
            let mut inside = 0;
            for lane in 0..LANES as u32 {
                let by = lanes[lane as usize] & 31;
                let clamp = clamps[lane as usize] & 31;
                let segment = clamps[lane as usize] >> 8 & 31;
                let first = lane & segment;
                let last = first | clamp & !segment;
                let (source, valid) = match MODE {
                    mode::UP => (lane.wrapping_sub(by), lane as i32 - by as i32 >= last as i32),
                    mode::DOWN => (lane + by, lane + by <= last),
                    mode::BUTTERFLY => (lane ^ by, lane ^ by <= last),
                    _ => (first | by & !segment, first | by & !segment <= last),
                };
                sources[lane as usize] = if valid { source & 31 } else { lane };
                inside |= Mask::from(valid) << lane;
            }
            let mut out = [0; LANES];
            for lane in 0..LANES {
                out[lane] = value[sources[lane] as usize & 31];
            }
            if core.mask != Mask::MAX {
                core.lose_inactive(inst, &sources, &mut out);
            }
            core.put(inst.ops[0], out);
            core.set_predicate(inst.ops[1], inside);
        }
        false
    }
}

/// The shuffle of this name.
pub fn shuffle(name: &str) -> Option<OpFn> {
    Some(match name {
        "up" => op::<Shuffle<{ mode::UP }>>(),
        "down" => op::<Shuffle<{ mode::DOWN }>>(),
        "bfly" => op::<Shuffle<{ mode::BUTTERFLY }>>(),
        "idx" => op::<Shuffle<{ mode::INDEX }>>(),
        _ => return None,
    })
}
