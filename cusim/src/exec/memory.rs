//! Loads and stores.

use super::core::{Core, Lane};
use super::op::{Inst, LANES, Mask, Op, OpFn, op};
use super::site::space;

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

/// Loads `N` consecutive values per lane into registers; `ops` are the destinations, then the address.
struct Load<T, const SPACE: u8, const N: usize>(std::marker::PhantomData<T>);

impl<T: Cell, const SPACE: u8, const N: usize> Op for Load<T, SPACE, N> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let bytes = size_of::<T>() * N;
        // SAFETY: lowering gave the instruction registers of these types and a site; `locate` returns only addresses
        // inside an allocation.
        unsafe {
            let addresses = core.addresses::<SPACE>(inst.ops[N], inst.imm);
            let Ok(at) = core.locate::<SPACE>(inst, &addresses, bytes as u64, false) else {
                return true;
            };
            let mut values = [[T::Register::default(); LANES]; N];
            if at.dense {
                let start = at.base.wrapping_add(addresses[0]) as *const T;
                for lane in 0..LANES {
                    for (part, value) in values.iter_mut().enumerate() {
                        value[lane] = start.add(lane * N + part).read().load();
                    }
                }
            } else {
                for lane in 0..LANES {
                    let start = at
                        .base
                        .wrapping_add(addresses[lane])
                        .wrapping_add(lane as u64 * at.stride)
                        as *const T;
                    for (part, value) in values.iter_mut().enumerate() {
                        value[lane] = start.add(part).read().load();
                    }
                }
            }
            for (part, value) in values.iter().enumerate() {
                core.put(inst.ops[part], *value);
            }
        }
        false
    }
}

/// Stores `N` consecutive values per lane; `ops` are the address, then the sources.
struct Store<T, const SPACE: u8, const N: usize>(std::marker::PhantomData<T>);

impl<T: Cell, const SPACE: u8, const N: usize> Op for Store<T, SPACE, N> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let bytes = size_of::<T>() * N;
        // SAFETY: as for loads.
        unsafe {
            let addresses = core.addresses::<SPACE>(inst.ops[0], inst.imm);
            let Ok(at) = core.locate::<SPACE>(inst, &addresses, bytes as u64, true) else {
                return true;
            };
            let values: [[T::Register; LANES]; N] =
                std::array::from_fn(|part| core.get(inst.ops[1 + part]));
            if at.dense {
                let start = at.base.wrapping_add(addresses[0]) as *mut T;
                for lane in 0..LANES {
                    for (part, value) in values.iter().enumerate() {
                        start.add(lane * N + part).write(T::store(value[lane]));
                    }
                }
            } else {
                let all = core.mask == Mask::MAX;
                for lane in 0..LANES {
                    if !all && core.mask >> lane & 1 == 0 {
                        continue;
                    }
                    let start = at
                        .base
                        .wrapping_add(addresses[lane])
                        .wrapping_add(lane as u64 * at.stride)
                        as *mut T;
                    for (part, value) in values.iter().enumerate() {
                        start.add(part).write(T::store(value[lane]));
                    }
                }
            }
        }
        false
    }
}

/// Kinds of cells by width and sign.
macro_rules! by_cell {
    ($operation:ident, $space:ident, $bits:expr, $signed:expr, $count:expr) => {
        match ($bits, $signed, $count) {
            (8, false, 1) => op::<$operation<u8, { space::$space }, 1>>(),
            (8, false, 2) => op::<$operation<u8, { space::$space }, 2>>(),
            (8, false, 4) => op::<$operation<u8, { space::$space }, 4>>(),
            (8, true, 1) => op::<$operation<i8, { space::$space }, 1>>(),
            (8, true, 2) => op::<$operation<i8, { space::$space }, 2>>(),
            (8, true, 4) => op::<$operation<i8, { space::$space }, 4>>(),
            (16, _, 1) => op::<$operation<u16, { space::$space }, 1>>(),
            (16, _, 2) => op::<$operation<u16, { space::$space }, 2>>(),
            (16, _, 4) => op::<$operation<u16, { space::$space }, 4>>(),
            (32, _, 1) => op::<$operation<u32, { space::$space }, 1>>(),
            (32, _, 2) => op::<$operation<u32, { space::$space }, 2>>(),
            (32, _, 4) => op::<$operation<u32, { space::$space }, 4>>(),
            (64, _, 1) => op::<$operation<u64, { space::$space }, 1>>(),
            (64, _, 2) => op::<$operation<u64, { space::$space }, 2>>(),
            _ => return None,
        }
    };
}

macro_rules! by_space {
    ($operation:ident, $space:expr, $bits:expr, $signed:expr, $count:expr) => {
        Some(match $space {
            space::GLOBAL => by_cell!($operation, GLOBAL, $bits, $signed, $count),
            space::SHARED => by_cell!($operation, SHARED, $bits, $signed, $count),
            space::LOCAL => by_cell!($operation, LOCAL, $bits, $signed, $count),
            _ => by_cell!($operation, GENERIC, $bits, $signed, $count),
        })
    };
}

/// The load of `count` values of `bits` each; 8-bit values extend by their sign if `signed`.
pub fn load(space: u8, bits: u32, signed: bool, count: usize) -> Option<OpFn> {
    by_space!(Load, space, bits, signed, count)
}

/// The store of `count` values of `bits` each.
pub fn store(space: u8, bits: u32, count: usize) -> Option<OpFn> {
    by_space!(Store, space, bits, false, count)
}
