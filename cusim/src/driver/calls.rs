//! How often the program called each function of the driver, if that is wanted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

static COUNTING: AtomicBool = AtomicBool::new(false);
static CALLS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

fn calls() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts from now on.
pub fn begin() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Counts a call of this function.
pub fn note(name: &'static str) {
    if COUNTING.load(Ordering::Relaxed) {
        *calls().entry(name).or_default() += 1;
    }
}

/// All counts.
pub fn all() -> BTreeMap<&'static str, u64> {
    calls().clone()
}
