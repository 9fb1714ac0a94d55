//! 0, 1, 2, ... on the device, for all arrays that count: copied once, not with each batch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::Staged;
use super::{Gpu, Ptr};
use crate::error::Result;

/// Numbers of the first array.
const FIRST: usize = 1 << 14;

/// Arrays of rising length. Shorter ones stay: kernels may be about to read them.
#[derive(Default)]
pub(super) struct Counting(Mutex<Vec<Arc<Staged>>>);

impl Counting {
    fn arrays(&self) -> MutexGuard<'_, Vec<Arc<Staged>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hold(numbers: &Staged, n: usize) -> bool {
    numbers.bytes >= n * size_of::<u32>()
}

impl Gpu {
    /// Starts copying 0, ..., n - 1, unless they are there.
    pub fn stage_counting(&self, n: usize) -> Result<()> {
        let arrays = &self.0.counting;
        if arrays.arrays().iter().any(|numbers| hold(numbers, n)) {
            return Ok(());
        }
        let count = n.next_power_of_two().max(FIRST);
        let fill = |numbers: &mut [u32]| (0..).zip(numbers).for_each(|(i, number)| *number = i);
        let numbers = self.copy_staged("counted numbers", count, fill)?;
        let mut arrays = arrays.arrays();
        arrays.push(Arc::new(numbers));
        arrays.sort_by_key(|numbers| numbers.bytes);
        Ok(())
    }

    /// Where 0, ..., n - 1 lie for kernels that are queued from now on. Stays so as long as the device is open.
    pub fn counting(&self, n: usize) -> Result<Ptr> {
        self.stage_counting(n)?;
        // Looked up first: who waits for a turn below must not keep the thread that records from looking up.
        let numbers = self.0.counting.arrays().iter().find(|numbers| hold(numbers, n)).cloned();
        match numbers {
            Some(numbers) => {
                numbers.arrival.wait(self)?;
                Ok(Ptr(numbers.block.at))
            }
            None => Ok(Ptr::NULL),
        }
    }
}
