//! Whose turn it is to use the device's stream: while one thread records it, what others queued would be recorded too.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cudarc::driver::CudaStream;

use super::Gpu;

/// How often recorded work runs, which decides who may have the memory that it gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// At once and never again: anybody, as in work that is not recorded.
    Once,
    /// Whenever its graph is launched: nobody else, as long as there is the graph.
    Often,
}

thread_local! {
    /// The gate that this thread has closed to record, and how.
    static CLOSED: Cell<(*const Gate, Runs)> = const { Cell::new((ptr::null(), Runs::Once)) };
}

/// Open to all threads for single calls, or closed by one that records.
#[derive(Default)]
pub(super) struct Gate(RwLock<()>);

/// Held while a thread records; opens the gate again.
pub(super) struct Closed<'a> {
    _alone: RwLockWriteGuard<'a, ()>,
    before: (*const Gate, Runs),
    /// The thread that closed it opens it.
    here: PhantomData<*const ()>,
}

impl Gate {
    /// How the calling thread records, if it does.
    pub fn recording(&self) -> Option<Runs> {
        let (gate, runs) = CLOSED.get();
        ptr::eq(gate, self).then_some(runs)
    }

    /// Waits until no other thread records, and keeps others from beginning to as long as what it returns is held: for one
    /// call of the driver, and no second turn within it.
    fn pass(&self) -> Option<RwLockReadGuard<'_, ()>> {
        match self.recording() {
            Some(_) => None,
            None => Some(self.0.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Waits until no call of another thread is under way, and closes the gate to all others. `None` if this thread has
    /// closed it already.
    pub fn close(&self, runs: Runs) -> Option<Closed<'_>> {
        if self.recording().is_some() {
            return None;
        }
        let alone = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Some(Closed { _alone: alone, before: CLOSED.replace((self, runs)), here: PhantomData })
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        CLOSED.set(self.before);
    }
}

/// The stream, for one call of the driver.
pub(super) struct Turn<'a> {
    stream: &'a Arc<CudaStream>,
    _pass: Option<RwLockReadGuard<'a, ()>>,
}

impl Deref for Turn<'_> {
    type Target = Arc<CudaStream>;

    fn deref(&self) -> &Arc<CudaStream> {
        self.stream
    }
}

impl Gpu {
    /// The stream, for one call of the driver. Whoever holds a turn must not ask for another.
    pub(super) fn turn(&self) -> Turn<'_> {
        self.notice();
        Turn { _pass: self.0.gate.pass(), stream: &self.0.stream }
    }
}
