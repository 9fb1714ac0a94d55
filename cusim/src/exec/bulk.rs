//! `cp.async.bulk`: a thread copies a whole range between device and shared memory. The bytes are there at once; who reads
//! them without waiting for the mbarrier is found by the checks.

use super::asynchronous::word;
use super::core::Core;
use super::event::Event;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::address::{Invalid, Site, space};
use crate::machine::fault::{Access, Fault, FaultKind};
use crate::machine::{LANES, Mask};
use crate::ptx::Space;

/// Ranges begin at multiples of this and have a multiple of it in bytes; the checks see them in pieces of this size.
pub const PIECE: u64 = 16;

/// `ops` are the address in shared memory, the one in device memory, the bytes, and for loads the mbarrier.
struct Copy<const LOAD: bool>;

impl<const LOAD: bool> Op for Copy<LOAD> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction registers of these widths and two sites; both ranges are checked; the block
        // outlives the run of its warps.
        unsafe {
            let shared = core.get::<u32>(inst.ops[0]).map(u64::from);
            let global: [u64; LANES] = core.get(inst.ops[1]);
            let bytes = core.get::<u32>(inst.ops[2]).map(u64::from);
            let mask = core.mask;
            for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
                if !bytes[lane].is_multiple_of(PIECE) {
                    let detail = format!("{} bytes are no multiple of {PIECE}", bytes[lane]);
                    return core.fault(inst, FaultKind::BadOperand, lane as u32, detail);
                }
                if bytes[lane] == 0 {
                    continue;
                }
                let Some(here) = range::<{ space::SHARED }>(core, inst, lane, shared[lane], bytes[lane], LOAD) else {
                    return true;
                };
                let Some(there) = range::<{ space::GLOBAL }>(core, inst, lane, global[lane], bytes[lane], !LOAD) else {
                    return true;
                };
                let (from, to) = if LOAD { (there, here) } else { (here, there) };
                std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes[lane] as usize);
            }
            let pieces = bytes.map(|bytes| bytes / PIECE);
            let most = (0..LANES).filter(|lane| mask >> lane & 1 != 0).map(|lane| pieces[lane]).max().unwrap_or(0);
            for piece in 0..most {
                let lanes =
                    (0..LANES).filter(|lane| piece < pieces[*lane]).fold(0, |lanes: Mask, lane| lanes | 1 << lane);
                let at = |start: [u64; LANES]| start.map(|start| start.wrapping_add(piece * PIECE));
                core.observe_piece(inst.aux, lanes, &at(shared));
                core.observe_piece(inst.aux + 1, lanes, &at(global));
            }
            if LOAD {
                return complete(core, inst, &bytes);
            }
        }
        false
    }
}

/// Where the host finds a range; `None` if the fault was raised.
fn range<const SPACE: u8>(
    core: &mut Core,
    inst: &Inst,
    lane: usize,
    start: u64,
    bytes: u64,
    write: bool,
) -> Option<u64> {
    let found = if !start.is_multiple_of(PIECE) {
        let detail = format!("the address is no multiple of {PIECE}");
        Err(Invalid { kind: FaultKind::Misaligned, detail })
    } else {
        core.bounds::<SPACE>(start, bytes, write)
    };
    match found {
        Ok(Site { place, .. }) => Some(core.base::<SPACE>(place).0.wrapping_add(start)),
        Err(Invalid { kind, detail }) => {
            let space = if SPACE == space::SHARED { Space::Shared } else { Space::Global };
            let access = Some(Access { address: start, bytes: bytes as u32, space, write });
            let (origin, lane) = (inst.origin, lane as u32);
            core.event = Event::Fault(Box::new(Fault { kind, origin, lane, block: 0, access, detail }));
            None
        }
    }
}

/// Tells the mbarrier how many bytes have come.
unsafe fn complete(core: &mut Core, inst: &Inst, bytes: &[u64; LANES]) -> bool {
    // SAFETY: the operand is a 32-bit register; the object is checked; the block outlives the run of its warps.
    unsafe {
        let objects = core.get::<u32>(inst.ops[3]).map(u64::from);
        let mask = core.mask;
        for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
            let Some(object) = core.checked::<{ space::SHARED }>(lane, objects[lane], 8, true) else {
                let detail = format!("there is no mbarrier at {:#x} in shared memory", objects[lane]);
                return core.fault(inst, FaultKind::OutOfBounds, lane as u32, detail);
            };
            let object = object as *mut u64;
            let old = object.read();
            let new = word::transfer(old, -(bytes[lane] as i64));
            object.write(new);
        }
        if let Some(checks) = &mut (*core.block).checks {
            // Who finds the phase over may read what has come.
            let lanes = (0..LANES).filter(|lane| mask >> lane & 1 != 0);
            checks.release(core.warp, lanes.map(|lane| objects[lane]));
        }
    }
    false
}

/// From device to shared memory.
pub fn load() -> OpFn {
    op::<Copy<true>>()
}

/// From shared to device memory.
pub fn store() -> OpFn {
    op::<Copy<false>>()
}
