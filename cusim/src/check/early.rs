//! Launches that may begin before those before them have ended (programmatic dependent launch): what they do until they have
//! waited for these with `griddepcontrol.wait`.

use super::block::BlockChecks;
use super::global::GlobalCells;
use super::part::Part;
use super::stamp::of_launch;
use super::watch::Watch;

impl BlockChecks {
    /// A warp has waited until the launches before this one have ended.
    pub fn waited_for_launches(&mut self, warp: u32) {
        self.waited |= 1 << warp;
    }

    /// Something ordered all threads of the block: what one has waited for is over for all.
    pub(super) fn share_wait(&mut self) {
        if self.waited != 0 {
            self.waited = u32::MAX;
        }
    }

    /// Whether launches before this one may not have ended yet when the warp does what it does now.
    pub(super) fn is_ahead(&self, watch: &Watch, warp: u32) -> bool {
        !watch.grid.unfinished.is_empty() && self.waited >> warp & 1 == 0
    }

    /// A warp that is ahead accesses device memory: what launches that may not have ended write, or read if it writes, is found
    /// by the stamps that they left. It must be seen before this access leaves its own.
    pub(super) fn overlaps(&mut self, watch: &Watch, part: &Part) {
        let shadow = watch.memory.shadow();
        let cells = GlobalCells::new(shadow);
        let unfinished = |launch: u64| watch.grid.unfinished.iter().any(|id| of_launch(*id) == launch);
        let touch = part.touch();
        let meets = |address: u64| {
            let words = (address & !3..address + u64::from(part.seen.bytes)).step_by(4);
            words.map(|word| cells.cell(word)).find_map(|cell| {
                let written = unfinished(cell.write.launch());
                (written || touch.write && unfinished(cell.read.launch())).then_some(written)
            })
        };
        for (lane, address) in part.lanes().filter(|(_, address)| shadow.covers(*address)) {
            if let Some(written) = meets(address) {
                self.found(watch, part.overlap(watch, self.number, (lane, address), written));
            }
        }
    }
}
