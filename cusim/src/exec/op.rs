//! Decoded instructions and how an operation becomes a function over the lanes of a warp.

use super::core::Core;

/// What an instruction does: changes the core's state, and says whether something other than "go on with the next
/// instruction" is to follow (then [`Core::event`] says what).
pub type OpFn = unsafe fn(&mut Core, &Inst) -> bool;

/// A decoded instruction: one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Inst {
    /// What to call.
    pub run: OpFn,
    /// The operation proper, where `run` only applies the guard.
    pub inner: OpFn,
    /// Registers: byte offsets in the frame, destinations first.
    pub ops: [u32; 6],
    /// An immediate: address offset, mode bits.
    pub imm: u64,
    /// The guard's register; the top bit negates.
    pub guard: u32,
    /// Branch target, memory site or index of further operands.
    pub aux: u32,
    /// Index of the PTX instruction it came from.
    pub origin: u32,
}

/// The bit of [`Inst::guard`] that negates.
pub const NEGATE: u32 = 1 << 31;

/// [`Inst::guard`] of an instruction that always runs.
pub const NO_GUARD: u32 = u32::MAX;

/// An operation over the lanes of a warp.
pub trait Op {
    /// Does it.
    ///
    /// # Safety
    /// The instruction's registers must lie in the core's frame and hold values of the types that the operation
    /// reads, as lowering sees to; the processor must have the features that [`op`] selects by.
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool;
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn with_avx512<O: Op>(core: &mut Core, inst: &Inst) -> bool {
    // SAFETY: as for this function.
    unsafe { O::run(core, inst) }
}

#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn with_avx2<O: Op>(core: &mut Core, inst: &Inst) -> bool {
    // SAFETY: as for this function.
    unsafe { O::run(core, inst) }
}

/// Whether this processor has what the AVX-512 build of the operations needs.
pub fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has_avx2() && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512cd")
}

/// Whether this processor can run operations at all.
pub fn has_avx2() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("f16c") && has!("bmi1") && has!("bmi2") && has!("lzcnt") && has!("popcnt")
}

/// The build of an operation for this processor.
pub fn op<O: Op>() -> OpFn {
    if has_avx512() { with_avx512::<O> } else { with_avx2::<O> }
}

/// Defines an operation that applies an expression lane by lane, written as a closure with types.
macro_rules! map {
    (|$($x:ident : $t:ty),+| -> $r:ty $body:block) => {{
        struct Lanewise;
        impl $crate::exec::op::Op for Lanewise {
            #[inline(always)]
            unsafe fn run(core: &mut $crate::exec::core::Core, inst: &$crate::exec::op::Inst) -> bool {
                // SAFETY: lowering gave the instruction registers of these types.
                unsafe {
                    let n = 0usize;
                    $(
                        let n = n + 1;
                        let $x: [$t; 32] = core.get(inst.ops[n]);
                    )+
                    let _ = n;
                    let mut out = [<$r>::default(); 32];
                    for lane in 0..32 {
                        $( let $x: $t = $x[lane]; )+
                        out[lane] = $body;
                    }
                    core.put(inst.ops[0], out);
                }
                false
            }
        }
        $crate::exec::op::op::<Lanewise>()
    }};
}

/// Evaluates an expression with a run-time flag as a constant.
macro_rules! with_flag {
    ($flag:expr, $name:ident => $e:expr) => {
        if $flag {
            const $name: bool = true;
            $e
        } else {
            const $name: bool = false;
            $e
        }
    };
}

/// Evaluates an expression with a run-time rounding mode as a constant.
macro_rules! with_rounding {
    ($mode:expr, $name:ident => $e:expr) => {
        match $mode {
            $crate::math::float::ZERO => {
                const $name: u8 = $crate::math::float::ZERO;
                $e
            }
            $crate::math::float::DOWN => {
                const $name: u8 = $crate::math::float::DOWN;
                $e
            }
            $crate::math::float::UP => {
                const $name: u8 = $crate::math::float::UP;
                $e
            }
            _ => {
                const $name: u8 = $crate::math::float::NEAREST;
                $e
            }
        }
    };
}

pub(crate) use {map, with_flag, with_rounding};
