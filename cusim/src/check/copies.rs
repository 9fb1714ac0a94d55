//! Checks of asynchronous copies.

use super::block::BlockChecks;
use super::report::Spot;
use super::watch::Watch;
use crate::machine::LANES;
use crate::machine::access::Copy;

impl BlockChecks {
    /// An asynchronous copy was started.
    pub fn copy_started(&mut self, watch: &Watch, warp: u32, copy: &Copy) {
        if self.checks.init {
            for lane in (0..LANES).filter(|lane| copy.lanes >> lane & 1 != 0) {
                let target = copy.target[lane] as usize;
                self.shared_written[target..target + copy.bytes as usize].fill(1);
            }
        }
        self.copy_touches(watch, warp, copy, false);
    }

    /// An asynchronous copy landed.
    pub fn copy_landed(&mut self, watch: &Watch, warp: u32, copy: &Copy) {
        self.copy_touches(watch, warp, copy, true);
    }

    /// A copy writes, when it starts and until it lands.
    fn copy_touches(&mut self, watch: &Watch, warp: u32, copy: &Copy, lands: bool) {
        if !self.checks.race || !self.clock.is_running() {
            return;
        }
        for lane in (0..LANES).filter(|lane| copy.lanes >> lane & 1 != 0) {
            let thread = warp * 32 + lane as u32;
            let target = u64::from(copy.target[lane]);
            let conflict = self.cells.copy_touches(&self.clock, thread, copy.origin, target, copy.bytes, lands);
            let Some((at, conflict)) = conflict else {
                continue;
            };
            let spot = Spot { origin: copy.origin, block: self.number, thread };
            let other = Spot { origin: conflict.origin, block: conflict.block, thread: conflict.thread };
            let verb = if conflict.wrote { "writes" } else { "reads" };
            let finding = watch.sink.finding(
                watch.grid,
                "race",
                || format!("asynchronous copy to {at:#x} in shared memory, which another thread {verb} meanwhile"),
                &spot,
                Some((&other, if conflict.wrote { "written by" } else { "read by" })),
                Vec::new,
            );
            self.found(watch, finding);
        }
    }
}
