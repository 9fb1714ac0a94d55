//! Checks of barriers and shuffles.

use super::block::BlockChecks;
use super::report::Spot;
use super::watch::Watch;
use crate::machine::Mask;
use crate::machine::barrier::{Arrival, Barrier, Completed};

impl BlockChecks {
    /// A shuffle read from lanes that take no part.
    pub fn inactive_source(&mut self, watch: &Watch, origin: u32, thread: u32, lanes: Mask) {
        if self.checks.sync {
            let finding = watch.sink.finding(
                watch.grid,
                "sync",
                || {
                    format!(
                        "shuffle reads from lanes that take no part, in lanes {lanes:#010x}: the result is undefined"
                    )
                },
                &Spot { origin, block: self.number, thread },
                None,
                Vec::new,
            );
            self.found(watch, finding);
        }
    }

    /// Lanes came to a barrier of the block.
    pub fn at_barrier(&mut self, watch: &Watch, origin: u32, thread: u32, arrival: &Arrival, whole: bool, alive: u32) {
        if !self.checks.sync {
            return;
        }
        let spot = Spot { origin, block: self.number, thread };
        let ended = watch.grid.threads() - alive;
        if arrival.aligned && !whole {
            let title = || "barrier in divergent code: not all lanes of the warp come to it together".to_string();
            self.found(watch, watch.sink.finding(watch.grid, "sync", title, &spot, None, Vec::new));
        } else if arrival.threads.is_none() && ended > 0 {
            let title = || format!("barrier that {ended} threads of the block never reach: they have ended");
            self.found(watch, watch.sink.finding(watch.grid, "sync", title, &spot, None, Vec::new));
        }
    }

    /// Threads came to a barrier where they are counted already.
    pub fn came_again(&mut self, watch: &Watch, origin: u32, thread: u32) {
        if self.checks.sync {
            let title = || "threads come to a barrier again that has not completed since they came last".to_string();
            let spot = Spot { origin, block: self.number, thread };
            self.found(watch, watch.sink.finding(watch.grid, "sync", title, &spot, None, Vec::new));
        }
    }

    /// All threads have ended, but a barrier still waits for some.
    pub fn barrier_left(&mut self, watch: &Watch, number: usize, barrier: &Barrier) {
        if self.checks.sync {
            let Barrier { arrived, expected, origin, .. } = *barrier;
            let title = || {
                let expected = expected.unwrap_or(watch.grid.threads());
                format!("barrier {number} never completes: {arrived} threads came, of {expected}")
            };
            let thread = barrier.warps.trailing_zeros() * 32;
            self.found(
                watch,
                watch.sink.finding(
                    watch.grid,
                    "sync",
                    title,
                    &Spot { origin, block: self.number, thread },
                    None,
                    Vec::new,
                ),
            );
        }
    }

    /// Everybody came to a barrier, which orders those who took part; `alive` threads could have.
    pub fn barrier_completed(&mut self, completed: &Completed, alive: u32) {
        if completed.threads >= alive && completed.warps == completed.waiting {
            self.block_synchronised();
            return;
        }
        self.clock.partial_barrier(completed.warps, completed.waiting);
        if let Some(pending) = &mut self.pending {
            pending.log().partial_barrier(completed.warps, completed.waiting);
        }
    }

    /// A warp came to a barrier at which it does not wait.
    pub fn announced(&mut self, warp: usize) {
        self.clock.announce(warp);
        if let Some(pending) = &mut self.pending {
            pending.log().announce(warp);
        }
    }

    /// Something ordered all threads of the block.
    pub fn block_synchronised(&mut self) {
        self.clock.barrier();
        self.share_wait();
        if let Some(pending) = &mut self.pending {
            pending.log().barrier();
        }
    }

    /// Lanes of a warp met.
    pub fn warp_synchronised(&mut self, warp: u32) {
        self.clock.warp_barrier(warp);
        if let Some(pending) = &mut self.pending {
            pending.log().warp_barrier(warp);
        }
    }
}
