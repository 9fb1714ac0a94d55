//! The state that operations work on: one warp, run by one host thread.

use super::event::Event;
use super::op::Inst;
use crate::machine::address::Site;
use crate::machine::{LANES, Mask};

/// What an operation sees of the warp that is running and of its block.
pub struct Core {
    /// The current frame of the register file.
    pub regs: *mut u8,
    /// Lanes that run now.
    pub mask: Mask,
    /// Where to go on after [`Event::Jump`].
    pub target: u32,
    /// What an operation that returned `true` asks for.
    pub event: Event,
    /// This thread's cache of allocation bounds, one entry per memory instruction.
    pub sites: *mut Site,
    /// The block's shared memory.
    pub shared: *mut u8,
    /// Local memory of lane 0; the lanes' follow at [`Core::local_stride`].
    pub local: *mut u8,
    /// Bytes of local memory per lane.
    pub local_stride: usize,
    /// Start of the current function's frame in local memory.
    pub local_base: u32,
    /// Size of the current function's frame in local memory.
    pub local_size: u32,
    /// Number of the warp in its block.
    pub warp: u32,
    /// Lanes of the warp that have not ended.
    pub alive: Mask,
    /// Everything that does not change while a block runs.
    pub block: *mut super::block::BlockState,
}

/// A value that a register holds for each lane.
pub trait Lane: Copy + 'static {
    /// Reads a register.
    ///
    /// # Safety
    /// `slot` must be the offset of a register of this type in the frame.
    unsafe fn read(regs: *const u8, slot: u32) -> [Self; LANES];

    /// Writes a register in the lanes of `mask`.
    ///
    /// # Safety
    /// As for [`Lane::read`].
    unsafe fn write(regs: *mut u8, slot: u32, mask: Mask, values: [Self; LANES]);
}

/// Replaces the values of the lanes in `mask`. A function of its own, so that operations stay short.
///
/// # Safety
/// The processor must have AVX2.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn blend<T: Copy>(register: &mut [T; LANES], mask: Mask, values: &[T; LANES]) {
    for lane in 0..LANES {
        register[lane] = if mask >> lane & 1 != 0 { values[lane] } else { register[lane] };
    }
}

macro_rules! lanes {
    ($($t:ty)*) => {$(
        impl Lane for $t {
            #[inline(always)]
            unsafe fn read(regs: *const u8, slot: u32) -> [Self; LANES] {
                // SAFETY: the caller gives a register of this type; registers are aligned to 64 bytes.
                unsafe { *regs.add(slot as usize).cast::<[Self; LANES]>() }
            }

            #[inline(always)]
            unsafe fn write(regs: *mut u8, slot: u32, mask: Mask, values: [Self; LANES]) {
                // SAFETY: as above; nothing else refers to the register file while an operation runs.
                let register = unsafe { &mut *regs.add(slot as usize).cast::<[Self; LANES]>() };
                if mask == Mask::MAX {
                    *register = values;
                } else {
                    // SAFETY: operations run only where the processor has AVX2.
                    unsafe { blend(register, mask, &values) };
                }
            }
        }
    )*};
}

lanes!(u16 i16 u32 i32 f32 u64 i64 f64);

/// Predicates are masks.
impl Lane for bool {
    #[inline(always)]
    unsafe fn read(regs: *const u8, slot: u32) -> [Self; LANES] {
        // SAFETY: the caller gives a predicate register, which is four aligned bytes.
        let bits = unsafe { *regs.add(slot as usize).cast::<Mask>() };
        let mut values = [false; LANES];
        for (lane, value) in values.iter_mut().enumerate() {
            *value = bits >> lane & 1 != 0;
        }
        values
    }

    #[inline(always)]
    unsafe fn write(regs: *mut u8, slot: u32, mask: Mask, values: [Self; LANES]) {
        let mut bits = 0;
        for (lane, value) in values.iter().enumerate() {
            bits |= Mask::from(*value) << lane;
        }
        // SAFETY: as above.
        let register = unsafe { &mut *regs.add(slot as usize).cast::<Mask>() };
        *register = *register & !mask | bits & mask;
    }
}

impl Core {
    /// Reads a register.
    ///
    /// # Safety
    /// `slot` must be the offset of a register of this type in the frame.
    #[inline(always)]
    pub unsafe fn get<T: Lane>(&self, slot: u32) -> [T; LANES] {
        // SAFETY: as for this function.
        unsafe { T::read(self.regs, slot) }
    }

    /// A register where it lies.
    ///
    /// # Safety
    /// `slot` must be the offset of a register of this type in the frame.
    #[inline(always)]
    pub unsafe fn register<T: Lane>(&self, slot: u32) -> *mut [T; LANES] {
        // SAFETY: as for this function.
        unsafe { self.regs.add(slot as usize).cast() }
    }

    /// Writes a register in the lanes that run.
    ///
    /// # Safety
    /// `slot` must be the offset of a register of this type in the frame.
    #[inline(always)]
    pub unsafe fn put<T: Lane>(&mut self, slot: u32, values: [T; LANES]) {
        // SAFETY: as for this function.
        unsafe { T::write(self.regs, slot, self.mask, values) }
    }

    /// A predicate register as a mask.
    ///
    /// # Safety
    /// `slot` must be the offset of a predicate register in the frame.
    #[inline(always)]
    pub unsafe fn predicate(&self, slot: u32) -> Mask {
        // SAFETY: as for this function.
        unsafe { *self.regs.add(slot as usize).cast::<Mask>() }
    }

    /// Sets a predicate register in the lanes that run.
    ///
    /// # Safety
    /// `slot` must be the offset of a predicate register in the frame.
    #[inline(always)]
    pub unsafe fn set_predicate(&mut self, slot: u32, bits: Mask) {
        // SAFETY: as for this function.
        let register = unsafe { &mut *self.regs.add(slot as usize).cast::<Mask>() };
        *register = *register & !self.mask | bits & self.mask;
    }

    /// Leaves the straight path.
    #[inline(always)]
    pub fn raise(&mut self, event: Event) -> bool {
        self.event = event;
        true
    }

    /// Lanes of the guard that let this instruction run.
    ///
    /// # Safety
    /// The instruction must have a guard.
    #[inline(always)]
    pub unsafe fn guard(&self, inst: &Inst) -> Mask {
        // SAFETY: the guard is a predicate register.
        let bits = unsafe { self.predicate(inst.guard & !super::op::NEGATE) };
        if inst.guard & super::op::NEGATE != 0 { !bits } else { bits }
    }
}
