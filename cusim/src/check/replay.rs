//! Looking at what blocks wrote down.

use super::global::GlobalChecks;
use super::log::{Access, Entry, Pending};
use super::part::Part;
use super::watch::Watch;
use crate::machine::access::Seen;

impl Pending {
    /// Looks at everything that the block wrote down, in order.
    pub fn replay(&mut self, watch: &Watch) {
        let checks = GlobalChecks { watch, checks: watch.checks(), block: self.block };
        let (log, clock) = (std::mem::take(&mut self.log), &mut self.clock);
        for entry in log.entries {
            match entry {
                Entry::Access(access) => {
                    let addresses = access.addresses.all(&log.addresses);
                    let Access { index, warp, mask, bytes, .. } = access;
                    let site = &watch.grid.listing.sites[index as usize];
                    let seen = Seen { site, index, warp, mask, addresses: &addresses, bytes };
                    let stored = access.stored.map(|index| &log.stored[index as usize]);
                    checks.accessed(clock, &Part { seen: &seen, mask, window: 0 }, stored);
                }
                Entry::Barrier => clock.barrier(),
                Entry::PartialBarrier(arrived, waiting) => clock.partial_barrier(arrived, waiting),
                Entry::Announce(warp) => clock.announce(warp as usize),
                Entry::WarpBarrier(warp) => clock.warp_barrier(warp),
                Entry::AcquireFrom(warp, address) => clock.acquire_from(warp, address),
                Entry::ReleaseTo(warp, address) => clock.release_to(warp, address),
                Entry::Found(finding) => watch.sink.found(*finding),
            }
        }
    }
}
