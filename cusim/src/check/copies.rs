//! Checks of asynchronous copies.

use super::block::BlockChecks;
use super::report::{Finding, Spot};
use crate::exec::launch::Launch;
use crate::machine::LANES;
use crate::machine::access::Copy;

impl BlockChecks {
    /// An asynchronous copy was started.
    pub fn copy_started(&mut self, launch: &Launch, warp: u32, copy: &Copy) {
        if self.checks.init {
            for lane in (0..LANES).filter(|lane| copy.lanes >> lane & 1 != 0) {
                let target = copy.target[lane] as usize;
                self.shared_written[target..target + copy.bytes as usize].fill(1);
            }
        }
        self.copy_touches(launch, warp, copy, false);
    }

    /// An asynchronous copy landed.
    pub fn copy_landed(&mut self, launch: &Launch, warp: u32, copy: &Copy) {
        self.copy_touches(launch, warp, copy, true);
    }

    /// A copy writes, when it starts and until it lands.
    fn copy_touches(&mut self, launch: &Launch, warp: u32, copy: &Copy, lands: bool) {
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
            let other =
                Spot { origin: conflict.origin, block: conflict.stamp.block(), thread: conflict.stamp.thread() };
            let verb = if conflict.wrote { "writes" } else { "reads" };
            let finding = Finding::new(
                launch,
                "race",
                || format!("asynchronous copy to {at:#x} in shared memory, which another thread {verb} meanwhile"),
                &spot,
                Some((&other, if conflict.wrote { "written by" } else { "read by" })),
                Vec::new,
            );
            self.found(launch, finding);
        }
    }
}
