//! The kernels that were launched, for those who prove that all of them were.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Gpu;

/// Names of launched kernels, kept only while somebody asks for them: a launch takes microseconds.
#[derive(Debug, Default)]
pub(super) struct Launched {
    wanted: AtomicBool,
    names: Mutex<BTreeSet<&'static str>>,
}

impl Launched {
    fn names(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, kernel: &'static str) {
        if self.wanted.load(Ordering::Relaxed) {
            self.names().insert(kernel);
        }
    }
}

impl Gpu {
    /// Runs `work`, and gives the kernels that were launched on the device meanwhile, or recorded into a graph. One at a time.
    pub fn launches_of<T>(&self, work: impl FnOnce() -> T) -> (T, BTreeSet<&'static str>) {
        let launched = &self.0.launched;
        launched.names().clear();
        launched.wanted.store(true, Ordering::Relaxed);
        let done = work();
        launched.wanted.store(false, Ordering::Relaxed);
        (done, std::mem::take(&mut *launched.names()))
    }
}
