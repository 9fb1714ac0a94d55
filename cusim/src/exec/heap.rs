//! `malloc` and `free` in kernels.

use super::core::Core;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::LANES;
use crate::machine::fault::FaultKind;

/// `malloc(bytes)`: `ops` are the address and the size. A null pointer where there is no memory left.
struct Allocate;

impl Op for Allocate {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction 64-bit registers; the block outlives the run of its warps.
        unsafe {
            let launch = (*core.block).launch();
            let sizes: [u64; LANES] = core.get(inst.ops[1]);
            let mut addresses = [0u64; LANES];
            for lane in (0..LANES).filter(|lane| core.mask >> lane & 1 != 0) {
                addresses[lane] =
                    launch.heap.and_then(|heap| launch.memory.allocate_in(heap, sizes[lane])).unwrap_or(0);
            }
            core.put(inst.ops[0], addresses);
        }
        false
    }
}

/// `free(address)`; a null pointer is nothing to free.
struct Free;

impl Op for Free {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: as for `Allocate`.
        let (launch, addresses): (_, [u64; LANES]) = unsafe { ((*core.block).launch(), core.get(inst.ops[0])) };
        for lane in (0..LANES).filter(|lane| core.mask >> lane & 1 != 0 && addresses[*lane] != 0) {
            let freed = match launch.heap {
                Some(heap) => heap.free(addresses[lane]),
                None => Err("no kernel has allocated memory".to_string()),
            };
            if let Err(why) = freed {
                let detail = format!("free of {:#x}: {why}", addresses[lane]);
                return core.fault(inst, FaultKind::BadFree, lane as u32, detail);
            }
        }
        false
    }
}

/// `malloc`.
pub fn allocate() -> OpFn {
    op::<Allocate>()
}

/// `free`.
pub fn free() -> OpFn {
    op::<Free>()
}
