//! Checks of asynchronous copies.

use super::block::BlockChecks;
use super::race::{Touch, touch_range};
use super::report::Spot;
use super::stamp::Who;
use crate::exec::copies::Copy;
use crate::exec::launch::Launch;
use crate::exec::op::LANES;

impl BlockChecks {
    /// An asynchronous copy was started.
    pub fn copy_started(&mut self, launch: &Launch, warp: u32, copy: &Copy) {
        for lane in (0..LANES).filter(|lane| copy.lanes >> lane & 1 != 0) {
            let target = u64::from(copy.target[lane]);
            if self.checks.init {
                self.shared_written[target as usize..(target + u64::from(copy.bytes)) as usize].fill(1);
            }
            if self.checks.race && self.clock.is_running() {
                self.copy_touches(launch, warp, lane, copy);
                for word in target / 4..(target + u64::from(copy.bytes)).div_ceil(4) {
                    let slot = &mut self.in_flight[word as usize];
                    *slot = (slot.0.saturating_add(1), copy.origin);
                    self.flying += 1;
                }
            }
        }
    }

    /// An asynchronous copy landed.
    pub fn copy_landed(&mut self, launch: &Launch, warp: u32, copy: &Copy) {
        if !self.checks.race || !self.clock.is_running() {
            return;
        }
        for lane in (0..LANES).filter(|lane| copy.lanes >> lane & 1 != 0) {
            let target = u64::from(copy.target[lane]);
            for word in target / 4..(target + u64::from(copy.bytes)).div_ceil(4) {
                let slot = &mut self.in_flight[word as usize];
                slot.0 = slot.0.saturating_sub(1);
                self.flying = self.flying.saturating_sub(1);
            }
            self.copy_touches(launch, warp, lane, copy);
        }
    }

    /// A copy writes, when it starts and until it lands.
    fn copy_touches(&mut self, launch: &Launch, warp: u32, lane: usize, copy: &Copy) {
        let touch = Touch { write: true, strong: false, origin: copy.origin };
        let thread = warp * 32 + lane as u32;
        let target = u64::from(copy.target[lane]);
        let conflict = touch_range(&mut self.cells, &self.clock, thread, Who::Thread, touch, target, copy.bytes);
        if let Some((at, conflict)) = conflict {
            let spot = Spot { origin: copy.origin, block: self.number, thread };
            let other =
                Spot { origin: conflict.origin, block: conflict.stamp.block(), thread: conflict.stamp.thread() };
            let verb = if conflict.wrote { "writes" } else { "reads" };
            launch.sink.found(
                launch,
                "race",
                || format!("asynchronous copy to {at:#x} in shared memory, which another thread {verb} meanwhile"),
                &spot,
                Some((&other, if conflict.wrote { "written by" } else { "read by" })),
                Vec::new,
            );
        }
    }
}
