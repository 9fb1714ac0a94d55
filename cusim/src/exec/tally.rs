//! How often instructions were executed.

use crate::machine::Mask;
use crate::machine::listing::Executed;

/// Counts of a program's instructions, one more than there are; null where nothing is counted.
#[derive(Clone, Copy)]
pub struct Tally(pub *mut Executed);

impl Tally {
    /// Counts the instructions of a range, which these lanes executed.
    ///
    /// # Safety
    /// The range must lie in the program's code.
    #[inline(always)]
    pub unsafe fn ran<const COUNT: bool>(self, range: std::ops::Range<u32>, lanes: Mask) {
        if COUNT {
            let lanes = u64::from(lanes.count_ones());
            // SAFETY: there is an entry per instruction and one for the end.
            let (first, end) = unsafe { (self.0.add(range.start as usize), self.0.add(range.end as usize)) };
            // SAFETY: as above; the two may be the same.
            unsafe {
                (*first).warps = (*first).warps.wrapping_add(1);
                (*first).lanes = (*first).lanes.wrapping_add(lanes);
                (*end).warps = (*end).warps.wrapping_sub(1);
                (*end).lanes = (*end).lanes.wrapping_sub(lanes);
            }
        }
    }

    /// Undoes [`Tally::left_out`].
    ///
    /// # Safety
    /// As for that.
    #[inline(always)]
    pub unsafe fn put_back(self, pc: u32, lanes: Mask) {
        let lanes = u64::from(lanes.count_ones());
        // SAFETY: there is an entry per instruction and one for the end.
        unsafe {
            let (this, next) = (&mut *self.0.add(pc as usize), &mut *self.0.add(pc as usize + 1));
            this.lanes = this.lanes.wrapping_add(lanes);
            next.lanes = next.lanes.wrapping_sub(lanes);
        }
    }

    /// Takes back lanes that the guard of an instruction leaves out.
    ///
    /// # Safety
    /// The instruction must lie in the program's code.
    #[inline(always)]
    pub unsafe fn left_out(self, pc: u32, lanes: Mask) {
        let lanes = u64::from(lanes.count_ones());
        // SAFETY: there is an entry per instruction and one for the end.
        unsafe {
            let (this, next) = (&mut *self.0.add(pc as usize), &mut *self.0.add(pc as usize + 1));
            this.lanes = this.lanes.wrapping_sub(lanes);
            next.lanes = next.lanes.wrapping_add(lanes);
        }
    }
}
