//! Read-modify-write operations.
//!
//! They use the host's atomics, since blocks run in parallel. Lanes follow each other in order.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::core::{Core, Lane};
use super::op::{Inst, Op, OpFn, op};
use crate::machine::LANES;
use crate::machine::address::space;
use crate::math::float::{self, finish};
use crate::math::half::{self, BF16, F16, pair2};
use crate::ptx::{Kind, ScalarType};

/// A word in memory that can be updated atomically.
pub trait Word: Lane + Default {
    /// Replaces the word at `at` by a function of it; returns the old one.
    ///
    /// # Safety
    /// `at` must be valid and aligned.
    unsafe fn update(at: u64, f: impl FnMut(Self) -> Self) -> Self;
}

macro_rules! words {
    ($($t:ident $atomic:ident)*) => {$(
        impl Word for $t {
            #[inline(always)]
            unsafe fn update(at: u64, mut f: impl FnMut(Self) -> Self) -> Self {
                // SAFETY: the caller gives a valid aligned address.
                let word = unsafe { $atomic::from_ptr(at as *mut $t) };
                let mut old = word.load(Ordering::Relaxed);
                while let Err(now) = word.compare_exchange_weak(old, f(old), Ordering::AcqRel, Ordering::Relaxed) {
                    old = now;
                }
                old
            }
        }
    )*};
}

words!(u16 AtomicU16 u32 AtomicU32 u64 AtomicU64);

/// What an atomic computes from the old value and its operands.
pub trait Update: 'static {
    /// The word.
    type Word: Word;
    /// The new value.
    fn apply(old: Self::Word, b: Self::Word, c: Self::Word) -> Self::Word;
}

/// `atom`: `ops` are the old value, address, b, c (c the same as b where there is none).
struct Atomic<U, const SPACE: u8>(std::marker::PhantomData<U>);

impl<U: Update, const SPACE: u8> Op for Atomic<U, SPACE> {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: lowering gave the instruction registers of these types and a site; `locate` returns only addresses
        // inside an allocation, aligned to the access.
        unsafe {
            let addresses = core.addresses::<SPACE>(inst.ops[1], inst.imm);
            let Some(at) = core.locate::<SPACE>(inst, &addresses, size_of::<U::Word>() as u64, true) else {
                return true;
            };
            let b: [U::Word; LANES] = core.get(inst.ops[2]);
            let c: [U::Word; LANES] = core.get(inst.ops[3]);
            let mut old = [U::Word::default(); LANES];
            for lane in 0..LANES {
                if core.mask >> lane & 1 != 0 {
                    let at = at.base.wrapping_add(addresses[lane]).wrapping_add(lane as u64 * at.stride);
                    old[lane] = U::Word::update(at, |old| U::apply(old, b[lane], c[lane]));
                }
            }
            core.put(inst.ops[0], old);
        }
        false
    }
}

/// Defines an update and picks its operation for a space.
macro_rules! update {
    ($space:expr, $t:ident, |$old:ident, $b:ident, $c:ident| $e:expr) => {{
        struct Computed;
        impl Update for Computed {
            type Word = $t;
            #[inline(always)]
            fn apply($old: $t, $b: $t, $c: $t) -> $t {
                let _ = ($old, $b, $c);
                $e
            }
        }
        Some(match $space {
            space::GLOBAL => op::<Atomic<Computed, { space::GLOBAL }>>(),
            space::SHARED => op::<Atomic<Computed, { space::SHARED }>>(),
            space::LOCAL => return None,
            _ => op::<Atomic<Computed, { space::GENERIC }>>(),
        })
    }};
}

/// Adds floats given as patterns.
fn add_f32(a: u32, b: u32, ftz: bool) -> u32 {
    let flush = |bits: u32| {
        if ftz { float::flush::<true>(f32::from_bits(bits)) } else { f32::from_bits(bits) }
    };
    let sum = finish::<false, false>(flush(a) + flush(b));
    (if ftz { float::flush::<true>(sum) } else { sum }).to_bits()
}

/// The atomic operation of this name on this type.
pub fn lookup(space: u8, name: &str, ty: ScalarType) -> Option<OpFn> {
    match (ty.kind, ty.bits) {
        (Kind::Bits, 16) => match name {
            "cas" => update!(space, u16, |old, b, c| if old == b { c } else { old }),
            _ => None,
        },
        (Kind::Bits, 32) => match name {
            "and" => update!(space, u32, |old, b, c| old & b),
            "or" => update!(space, u32, |old, b, c| old | b),
            "xor" => update!(space, u32, |old, b, c| old ^ b),
            "exch" => update!(space, u32, |old, b, c| b),
            "cas" => update!(space, u32, |old, b, c| if old == b { c } else { old }),
            _ => None,
        },
        (Kind::Bits, 64) => match name {
            "and" => update!(space, u64, |old, b, c| old & b),
            "or" => update!(space, u64, |old, b, c| old | b),
            "xor" => update!(space, u64, |old, b, c| old ^ b),
            "exch" => update!(space, u64, |old, b, c| b),
            "cas" => update!(space, u64, |old, b, c| if old == b { c } else { old }),
            _ => None,
        },
        (Kind::Unsigned, 32) => match name {
            "add" => update!(space, u32, |old, b, c| old.wrapping_add(b)),
            "min" => update!(space, u32, |old, b, c| old.min(b)),
            "max" => update!(space, u32, |old, b, c| old.max(b)),
            "inc" => update!(space, u32, |old, b, c| if old >= b { 0 } else { old + 1 }),
            "dec" => update!(space, u32, |old, b, c| if old == 0 || old > b { b } else { old - 1 }),
            _ => None,
        },
        (Kind::Signed, 32) => match name {
            "add" => update!(space, u32, |old, b, c| old.wrapping_add(b)),
            "min" => update!(space, u32, |old, b, c| (old as i32).min(b as i32) as u32),
            "max" => update!(space, u32, |old, b, c| (old as i32).max(b as i32) as u32),
            _ => None,
        },
        (Kind::Unsigned, 64) => match name {
            "add" => update!(space, u64, |old, b, c| old.wrapping_add(b)),
            "min" => update!(space, u64, |old, b, c| old.min(b)),
            "max" => update!(space, u64, |old, b, c| old.max(b)),
            _ => None,
        },
        (Kind::Signed, 64) => match name {
            "add" => update!(space, u64, |old, b, c| old.wrapping_add(b)),
            "min" => update!(space, u64, |old, b, c| (old as i64).min(b as i64) as u64),
            "max" => update!(space, u64, |old, b, c| (old as i64).max(b as i64) as u64),
            _ => None,
        },
        _ if name == "add" => float_add(space, ty),
        _ => None,
    }
}

fn float_add(space: u8, ty: ScalarType) -> Option<OpFn> {
    match (ty.kind, ty.bits) {
        // In global memory the addition flushes subnormals, in shared memory it does not.
        (Kind::Float, 32) if space == space::SHARED => {
            update!(space, u32, |old, b, c| add_f32(old, b, false))
        }
        (Kind::Float, 32) => update!(space, u32, |old, b, c| add_f32(old, b, true)),
        (Kind::Float, 64) => {
            update!(space, u64, |old, b, c| (f64::from_bits(old) + f64::from_bits(b)).to_bits())
        }
        (Kind::Float, 16) => update!(space, u16, |old, b, c| half::add::<F16, false, false>(old, b)),
        (Kind::BFloat, 16) => update!(space, u16, |old, b, c| half::add::<BF16, false, false>(old, b)),
        (Kind::FloatPair, 32) => {
            update!(space, u32, |old, b, c| pair2(half::add::<F16, false, false>, old, b))
        }
        (Kind::BFloatPair, 32) => {
            update!(space, u32, |old, b, c| pair2(half::add::<BF16, false, false>, old, b))
        }
        _ => None,
    }
}
