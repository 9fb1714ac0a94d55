//! What to say where nothing can go on.

use super::super::launch::Launch;
use super::super::warp::Wait;
use super::Block;
use crate::machine::fault::{Fault, FaultKind};

impl Block {
    /// The fault of a block that waits for other blocks in vain.
    pub fn stuck(&self, launch: &Launch) -> Box<Fault> {
        Box::new(self.deadlock(launch))
    }

    /// Why nothing can go on.
    pub(super) fn deadlock(&self, launch: &Launch) -> Fault {
        let waiting = self
            .warps
            .iter()
            .enumerate()
            .flat_map(|(index, warp)| warp.groups.iter().map(move |group| (index, group)))
            .filter(|(_, group)| group.mask != 0);
        let mut places = vec![];
        let mut first = None;
        let mut kind = FaultKind::Deadlock;
        for (index, group) in waiting {
            let origin = launch.program.code[group.pc as usize].origin;
            first = first.or(Some((origin, index as u32 * 32 + group.mask.trailing_zeros())));
            if matches!(group.wait, Wait::Converge(_)) {
                kind = FaultKind::Divergence;
            }
            let line = launch.program.listing.origins[origin as usize].ptx_line;
            if places.len() < 8 {
                places.push(format!("warp {index} lanes {:#010x} at PTX line {line}", group.mask));
            }
        }
        let (origin, thread) = first.unwrap_or((0, 0));
        Fault {
            kind,
            origin,
            lane: thread,
            block: 0,
            access: None,
            detail: format!("threads wait for others that never come: {}", places.join(", ")),
        }
    }
}
