//! Loads and stores.

use std::arch::x86_64::{__m128i, _mm_load_si128, _mm512_castsi128_si512, _mm512_inserti32x4, _mm512_store_si512};

use super::core::{Core, Lane};
use super::op::{Inst, Op, OpFn, has_avx512, op};
use crate::machine::address::space;
use crate::machine::{LANES, Mask};

/// A value in memory and the register that holds it.
pub trait Cell: Copy + 'static {
    /// The register's type.
    type Register: Lane + Default;
    /// Into the register.
    fn load(self) -> Self::Register;
    /// Out of the register.
    fn store(register: Self::Register) -> Self;
}

macro_rules! cells {
    ($($t:ident in $r:ident;)*) => {$(
        impl Cell for $t {
            type Register = $r;
            #[inline(always)]
            fn load(self) -> $r {
                self as $r
            }
            #[inline(always)]
            fn store(register: $r) -> Self {
                register as Self
            }
        }
    )*};
}

cells! {
    u8 in u16;
    i8 in u16;
    u16 in u16;
    u32 in u32;
    u64 in u64;
}

/// Values of all lanes as they lie in memory.
#[repr(C, align(64))]
struct Raw<T, const N: usize>([[T; N]; LANES]);

/// Copies a lane's bytes in one piece.
///
/// # Safety
/// `from` must be valid for reads of `BYTES` bytes and `to` for writes; both must be aligned to `BYTES`.
#[inline(always)]
unsafe fn fetch<const BYTES: usize>(from: u64, to: *mut u8) {
    // Volatile, so that the compiler does not make gathers of the loop around it: these take longer than plain loads.
    // SAFETY: as for this function.
    unsafe {
        match BYTES {
            1 => to.write((from as *const u8).read_volatile()),
            2 => to.cast::<u16>().write((from as *const u16).read_volatile()),
            4 => to.cast::<u32>().write((from as *const u32).read_volatile()),
            8 => to.cast::<u64>().write((from as *const u64).read_volatile()),
            _ => to.cast::<__m128i>().write((from as *const __m128i).read_volatile()),
        }
    }
}

/// Copies 16 bytes of each lane, in pieces of 64: a vector that is read from memory right after it was written in
/// smaller parts would have to wait for them.
///
/// # Safety
/// All addresses must be valid and aligned, `to` must have room for all lanes, and the processor must have AVX-512.
#[inline(always)]
unsafe fn fetch_quads(hosts: &[u64; LANES], to: *mut u8) {
    // SAFETY: as for this function.
    unsafe {
        for quad in 0..LANES / 4 {
            let lane = |lane: usize| _mm_load_si128(hosts[4 * quad + lane] as *const __m128i);
            let pieces = _mm512_castsi128_si512(lane(0));
            let pieces = _mm512_inserti32x4::<1>(pieces, lane(1));
            let pieces = _mm512_inserti32x4::<2>(pieces, lane(2));
            let pieces = _mm512_inserti32x4::<3>(pieces, lane(3));
            _mm512_store_si512(to.add(64 * quad).cast(), pieces);
        }
    }
}

/// Loads `N` consecutive values per lane into registers; `ops` are the destinations, then the address.
struct Load<T, const SPACE: u8, const N: usize, const BYTES: usize, const WIDE: bool>(std::marker::PhantomData<T>);

impl<T: Cell, const SPACE: u8, const N: usize, const BYTES: usize, const WIDE: bool> Op
    for Load<T, SPACE, N, BYTES, WIDE>
{
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction registers of these types and a site; `locate` returns only addresses
        // inside an allocation. Any bytes are values of these types.
        unsafe {
            let addresses = core.addresses::<SPACE>(inst.ops[N], inst.imm);
            let Some(at) = core.locate::<SPACE>(inst, &addresses, BYTES as u64, false) else {
                return true;
            };
            let mut raw = std::mem::MaybeUninit::<Raw<T, N>>::uninit();
            let start = raw.as_mut_ptr().cast::<u8>();
            if at.dense {
                start.copy_from_nonoverlapping(at.base.wrapping_add(addresses[0]) as *const u8, LANES * BYTES);
            } else {
                let hosts = at.hosts(&addresses);
                if WIDE && BYTES == 16 {
                    fetch_quads(&hosts, start);
                } else {
                    for lane in 0..LANES {
                        fetch::<BYTES>(hosts[lane], start.add(lane * BYTES));
                    }
                }
            }
            let raw = raw.assume_init();
            for part in 0..N {
                let mut values = [T::Register::default(); LANES];
                for lane in 0..LANES {
                    values[lane] = raw.0[lane][part].load();
                }
                core.put(inst.ops[part], values);
            }
        }
        false
    }
}

/// Stores `N` consecutive values per lane; `ops` are the address, then the sources.
struct Store<T, const SPACE: u8, const N: usize, const BYTES: usize>(std::marker::PhantomData<T>);

impl<T: Cell, const SPACE: u8, const N: usize, const BYTES: usize> Op for Store<T, SPACE, N, BYTES> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: as for loads.
        unsafe {
            let addresses = core.addresses::<SPACE>(inst.ops[0], inst.imm);
            let Some(at) = core.locate::<SPACE>(inst, &addresses, BYTES as u64, true) else {
                return true;
            };
            let mut raw = std::mem::MaybeUninit::<Raw<T, N>>::uninit();
            let start = raw.as_mut_ptr();
            for part in 0..N {
                let values: [T::Register; LANES] = core.get(inst.ops[1 + part]);
                for lane in 0..LANES {
                    (&raw mut (*start).0[lane][part]).write(T::store(values[lane]));
                }
            }
            let start = start.cast::<u8>();
            if at.dense {
                start.copy_to_nonoverlapping(at.base.wrapping_add(addresses[0]) as *mut u8, LANES * BYTES);
            } else {
                let hosts = at.hosts(&addresses);
                for lane in 0..LANES {
                    if core.mask == Mask::MAX || core.mask >> lane & 1 != 0 {
                        fetch::<BYTES>(start.add(lane * BYTES) as u64, hosts[lane] as *mut u8);
                    }
                }
            }
        }
        false
    }
}

/// A load; those of 16 bytes per lane have a build for AVX-512.
macro_rules! pick_load {
    ($operation:ident, $t:ident, $space:ident, $count:literal, $bytes:literal) => {
        if $bytes == 16 && has_avx512() {
            op::<$operation<$t, { space::$space }, $count, $bytes, true>>()
        } else {
            op::<$operation<$t, { space::$space }, $count, $bytes, false>>()
        }
    };
}

/// A store.
macro_rules! pick_store {
    ($operation:ident, $t:ident, $space:ident, $count:literal, $bytes:literal) => {
        op::<$operation<$t, { space::$space }, $count, $bytes>>()
    };
}

/// Kinds of cells by width and sign.
macro_rules! by_cell {
    ($pick:ident, $operation:ident, $space:ident, $bits:expr, $signed:expr, $count:expr) => {
        match ($bits, $signed, $count) {
            (8, false, 1) => $pick!($operation, u8, $space, 1, 1),
            (8, false, 2) => $pick!($operation, u8, $space, 2, 2),
            (8, false, 4) => $pick!($operation, u8, $space, 4, 4),
            (8, true, 1) => $pick!($operation, i8, $space, 1, 1),
            (8, true, 2) => $pick!($operation, i8, $space, 2, 2),
            (8, true, 4) => $pick!($operation, i8, $space, 4, 4),
            (16, _, 1) => $pick!($operation, u16, $space, 1, 2),
            (16, _, 2) => $pick!($operation, u16, $space, 2, 4),
            (16, _, 4) => $pick!($operation, u16, $space, 4, 8),
            (32, _, 1) => $pick!($operation, u32, $space, 1, 4),
            (32, _, 2) => $pick!($operation, u32, $space, 2, 8),
            (32, _, 4) => $pick!($operation, u32, $space, 4, 16),
            (64, _, 1) => $pick!($operation, u64, $space, 1, 8),
            (64, _, 2) => $pick!($operation, u64, $space, 2, 16),
            _ => return None,
        }
    };
}

macro_rules! by_space {
    ($pick:ident, $operation:ident, $space:expr, $bits:expr, $signed:expr, $count:expr) => {
        Some(match $space {
            space::GLOBAL => by_cell!($pick, $operation, GLOBAL, $bits, $signed, $count),
            space::SHARED => by_cell!($pick, $operation, SHARED, $bits, $signed, $count),
            space::LOCAL => by_cell!($pick, $operation, LOCAL, $bits, $signed, $count),
            _ => by_cell!($pick, $operation, GENERIC, $bits, $signed, $count),
        })
    };
}

/// The load of `count` values of `bits` each; 8-bit values extend by their sign if `signed`.
pub fn load(space: u8, bits: u32, signed: bool, count: usize) -> Option<OpFn> {
    by_space!(pick_load, Load, space, bits, signed, count)
}

/// The store of `count` values of `bits` each.
pub fn store(space: u8, bits: u32, count: usize) -> Option<OpFn> {
    by_space!(pick_store, Store, space, bits, false, count)
}
