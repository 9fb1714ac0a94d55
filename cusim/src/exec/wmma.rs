//! `wmma.load` and `wmma.store`: fragments whose layout is the implementation's own.
//!
//! Element `e` of a fragment, counted row by row, is slot `e % n` of lane `e / n`, with `n` elements per lane. Half
//! precision's A and B hold every element twice, as their registers have room for it. Half-bytes are moved by words, B's
//! column by column.

use super::core::{Core, Lane};
use super::event::Event;
use super::fragment::Part;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::LANES;
use crate::machine::address::space;
use crate::machine::fault::{Access, Fault, FaultKind};
use crate::ptx::Space;

/// `wmma.load` and `wmma.store`: operands, in the program's list, are the fragment, the address and the stride.
struct Transfer<
    R,
    const STORE: bool,
    const SPACE: u8,
    const BITS: u32,
    const ROWS: usize,
    const COLUMNS: usize,
    const BY_COLUMN: bool,
    const DOUBLED: bool,
>(std::marker::PhantomData<R>);

impl<
    R,
    const STORE: bool,
    const SPACE: u8,
    const BITS: u32,
    const ROWS: usize,
    const COLUMNS: usize,
    const BY_COLUMN: bool,
    const DOUBLED: bool,
> Op for Transfer<R, STORE, SPACE, BITS, ROWS, COLUMNS, BY_COLUMN, DOUBLED>
where
    R: Lane + Default + Into<u64> + TryFrom<u64>,
{
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let per_lane = ROWS * COLUMNS / 32;
        let per_register = size_of::<R>() * 8 / BITS as usize;
        let slots = if DOUBLED { 16 } else { per_lane };
        let registers = slots / per_register;
        let bytes = u64::from(BITS / 8);
        // SAFETY: lowering listed operands of these types; every element's address is checked.
        unsafe {
            if !core.whole_warp(inst) {
                return true;
            }
            let program = (*core.block).launch().program;
            let list = &program.operands[inst.ops[0] as usize..];
            let addresses = core.addresses::<SPACE>(list[registers], inst.imm);
            let strides: [u32; LANES] = core.get(list[registers + 1]);
            let mut values = [[0u64; LANES]; 16];
            if STORE {
                for register in 0..registers {
                    let pattern: [R; LANES] = core.get(list[register]);
                    for lane in 0..LANES {
                        values[register][lane] = pattern[lane].into();
                    }
                }
            }
            let mut observed = [[0; LANES]; 16];
            for slot in 0..slots {
                if slot >= per_lane {
                    // The second copy of elements that were read already.
                    copy_slot(&mut values, slot, per_lane, per_register, BITS);
                    continue;
                }
                let at = &mut observed[slot];
                for lane in 0..LANES {
                    let element = (lane * per_lane + slot % per_lane) as u64;
                    let (row, column) = (element / COLUMNS as u64, element % COLUMNS as u64);
                    let stride = u64::from(strides[lane]);
                    let index = if BY_COLUMN { column * stride + row } else { row * stride + column };
                    at[lane] = addresses[lane].wrapping_add(index * bytes);
                }
                let Some(hosts) = locate_elements::<SPACE>(core, inst, at, bytes, STORE) else {
                    return true;
                };
                let shift = (slot % per_register) as u32 * BITS;
                let register = &mut values[slot / per_register];
                for lane in 0..LANES {
                    if STORE {
                        write_bits(hosts[lane], register[lane] >> shift, BITS);
                    } else {
                        register[lane] |= read_bits(hosts[lane], BITS) << shift;
                    }
                }
            }
            if !STORE {
                for register in 0..registers {
                    let pattern: [R; LANES] = values[register].map(|value| R::try_from(value).unwrap_or_default());
                    core.put(list[register], pattern);
                }
            }
            core.observe_elements(inst, &observed[..per_lane]);
        }
        false
    }
}

/// Half precision's A and B hold every element twice.
#[inline(always)]
fn copy_slot(values: &mut [[u64; LANES]; 16], slot: usize, per_lane: usize, per_register: usize, bits: u32) {
    let from = slot % per_lane;
    let shift = |slot: usize| (slot % per_register) as u32 * bits;
    for lane in 0..LANES {
        let element = values[from / per_register][lane] >> shift(from) & ((1 << bits) - 1);
        values[slot / per_register][lane] |= element << shift(slot);
    }
}

/// Where the host finds an element of each lane; `None` if the fault was raised.
#[inline(always)]
unsafe fn locate_elements<const SPACE: u8>(
    core: &mut Core,
    inst: &Inst,
    addresses: &[u64; LANES],
    bytes: u64,
    write: bool,
) -> Option<[u64; LANES]> {
    // SAFETY: matrix instructions have a site.
    if let Some(at) = unsafe { core.locate::<SPACE>(inst, addresses, bytes, write) } {
        return Some(at.hosts(addresses));
    }
    if !matches!(core.event, Event::Apart) {
        return None;
    }
    // Rows in several allocations: one after the other.
    core.event = Event::None;
    let mut hosts = [0; LANES];
    for (lane, address) in addresses.iter().enumerate() {
        let Some(host) = core.checked::<SPACE>(lane, *address, bytes, write) else {
            refuse::<SPACE>(core, inst, lane, *address, bytes as u32, write);
            return None;
        };
        hosts[lane] = host;
    }
    Some(hosts)
}

unsafe fn read_bits(host: u64, bits: u32) -> u64 {
    // SAFETY: the caller checked the address for this many bits.
    unsafe {
        match bits {
            8 => u64::from(*(host as *const u8)),
            16 => u64::from(*(host as *const u16)),
            32 => u64::from(*(host as *const u32)),
            _ => *(host as *const u64),
        }
    }
}

unsafe fn write_bits(host: u64, value: u64, bits: u32) {
    // SAFETY: the caller checked the address for this many bits.
    unsafe {
        match bits {
            8 => *(host as *mut u8) = value as u8,
            16 => *(host as *mut u16) = value as u16,
            32 => *(host as *mut u32) = value as u32,
            _ => *(host as *mut u64) = value,
        }
    }
}

#[cold]
fn refuse<const SPACE: u8>(core: &mut Core, inst: &Inst, lane: usize, address: u64, bytes: u32, write: bool) {
    let space = match SPACE {
        space::SHARED => Space::Shared,
        space::GLOBAL => Space::Global,
        _ => Space::Generic,
    };
    let misaligned = !address.is_multiple_of(u64::from(bytes));
    let kind = if misaligned { FaultKind::Misaligned } else { FaultKind::OutOfBounds };
    core.event = Event::Fault(Box::new(Fault {
        kind,
        origin: inst.origin,
        lane: lane as u32,
        block: 0,
        access: Some(Access { address, bytes, space, write }),
        detail: "an element of the matrix lies outside of memory".into(),
    }));
}

/// The load or store of a fragment.
pub fn transfer(store: bool, space: u8, part: &Part, by_column: bool) -> Option<OpFn> {
    macro_rules! spaces {
        ($r:ty, $store:literal, $bits:literal, $rows:literal, $columns:literal, $by_column:literal, $doubled:literal) => {
            match space {
                space::GLOBAL => {
                    op::<Transfer<$r, $store, { space::GLOBAL }, $bits, $rows, $columns, $by_column, $doubled>>()
                }
                space::SHARED => {
                    op::<Transfer<$r, $store, { space::SHARED }, $bits, $rows, $columns, $by_column, $doubled>>()
                }
                space::GENERIC => {
                    op::<Transfer<$r, $store, { space::GENERIC }, $bits, $rows, $columns, $by_column, $doubled>>()
                }
                _ => return None,
            }
        };
    }
    macro_rules! kinds {
        ($r:ty, $bits:literal, $rows:literal, $columns:literal, $doubled:literal) => {
            match (store, by_column) {
                (false, false) => spaces!($r, false, $bits, $rows, $columns, false, $doubled),
                (false, true) => spaces!($r, false, $bits, $rows, $columns, true, $doubled),
                (true, false) => spaces!($r, true, $bits, $rows, $columns, false, $doubled),
                (true, true) => spaces!($r, true, $bits, $rows, $columns, true, $doubled),
            }
        };
    }
    Some(match (part.bits, part.rows, part.columns, part.doubled) {
        (16, 16, 16, true) => kinds!(u32, 16, 16, 16, true),
        (16, 32, 16, true) => kinds!(u32, 16, 32, 16, true),
        (16, 16, 8, true) => kinds!(u32, 16, 16, 8, true),
        (16, 8, 16, true) => kinds!(u32, 16, 8, 16, true),
        (16, 16, 32, true) => kinds!(u32, 16, 16, 32, true),
        (16, 16, 16, false) => kinds!(u32, 16, 16, 16, false),
        (16, 32, 16, false) => kinds!(u32, 16, 32, 16, false),
        (16, 16, 8, false) => kinds!(u32, 16, 16, 8, false),
        (16, 8, 16, false) => kinds!(u32, 16, 8, 16, false),
        (16, 16, 32, false) => kinds!(u32, 16, 16, 32, false),
        (16, 32, 8, false) => kinds!(u32, 16, 32, 8, false),
        (16, 8, 32, false) => kinds!(u32, 16, 8, 32, false),
        (32, 8, 8, _) => kinds!(u32, 32, 8, 8, false),
        (32, 8, 4, _) => kinds!(u32, 32, 8, 4, false),
        (32, 16, 16, _) => kinds!(u32, 32, 16, 16, false),
        (32, 32, 8, _) => kinds!(u32, 32, 32, 8, false),
        (32, 8, 32, _) => kinds!(u32, 32, 8, 32, false),
        (32, 16, 8, _) => kinds!(u32, 32, 16, 8, false),
        (32, 8, 16, _) => kinds!(u32, 32, 8, 16, false),
        (8, 16, 16, _) => kinds!(u32, 8, 16, 16, false),
        (8, 32, 16, _) => kinds!(u32, 8, 32, 16, false),
        (8, 16, 8, _) => kinds!(u32, 8, 16, 8, false),
        (8, 8, 16, _) => kinds!(u32, 8, 8, 16, false),
        (8, 16, 32, _) => kinds!(u32, 8, 16, 32, false),
        (64, 8, 8, _) => kinds!(u64, 64, 8, 8, false),
        (64, 8, 4, _) => kinds!(u64, 64, 8, 4, false),
        (64, 4, 8, _) => kinds!(u64, 64, 4, 8, false),
        _ => return None,
    })
}
