//! Arrivals at barriers, and who goes on when they complete.

use super::super::block::{BARRIERS, reduce};
use super::super::core::Lane;
use super::super::launch::Launch;
use super::super::warp::Wait;
use super::Block;
use crate::machine::LANES;
use crate::machine::barrier::Reduction;

impl Block {
    /// Counts groups of a warp that came to a barrier, now that none of its lanes can come any more.
    pub(super) fn count_arrivals(&mut self, launch: &Launch, index: usize) {
        let warp = &mut self.warps[index];
        for group in &mut warp.groups {
            let Wait::Barrier(arrival, counted @ false) = &mut group.wait else {
                continue;
            };
            *counted = true;
            let whole = group.mask == warp.alive;
            let origin = launch.program.code[group.pc as usize].origin;
            let again = self.state.arrive(arrival, index, group.mask, whole, origin);
            if let Some(checks) = &mut self.state.checks {
                let thread = index as u32 * 32 + group.mask.trailing_zeros();
                if again {
                    checks.came_again(&launch.watch, origin, thread);
                }
                checks.at_barrier(&launch.watch, origin, thread, arrival, whole, self.state.alive);
            }
        }
    }

    /// Lets go those who wait at barriers to which everybody has come.
    pub(super) fn release(&mut self) {
        for barrier in 0..BARRIERS {
            let Some(completed) = self.state.complete(barrier) else {
                continue;
            };
            if let Some(checks) = &mut self.state.checks {
                checks.barrier_completed(&completed, self.state.alive);
            }
            let mut released = vec![];
            for warp in &mut self.warps {
                for group in &mut warp.groups {
                    let Wait::Barrier(arrival, true) = group.wait else {
                        continue;
                    };
                    if arrival.barrier as usize % BARRIERS != barrier {
                        continue;
                    }
                    if let Some((reduction, _, slot)) = arrival.reduction {
                        let value = reduce(reduction, completed.count, completed.threads);
                        // SAFETY: lowering gave the instruction this register: a predicate for the logical
                        // reductions, else 32 bits wide.
                        unsafe {
                            let frame = warp.registers.as_ptr().add(group.frame.registers as usize);
                            if reduction == Reduction::Count {
                                u32::write(frame, slot, group.mask, [value; LANES]);
                            } else {
                                bool::write(frame, slot, group.mask, [value != 0; LANES]);
                            }
                        }
                    }
                    group.pc += 1;
                    group.wait = Wait::Ready;
                    released.push(group.pc);
                }
                if !released.is_empty() {
                    // Groups of a warp that left the barrier together run together.
                    let groups = std::mem::take(&mut warp.groups);
                    for group in groups {
                        if matches!(group.wait, Wait::Ready) { warp.push(group) } else { warp.groups.push(group) }
                    }
                    released.clear();
                }
            }
        }
    }
}
