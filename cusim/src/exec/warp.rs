//! A warp: its lanes in groups that run together, and which group is next.
//!
//! Lanes that diverge become groups; the group with the deepest call and then the lowest instruction goes first, and
//! groups that meet at the same instruction merge. A group that jumps back very often loses its place, so that lanes
//! which spin on a lock cannot starve the lane that holds it.

use super::buffer::Buffer;
use crate::machine::Mask;
use crate::machine::barrier::Arrival;

/// Where a group's current function keeps its registers and variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Index of the function.
    pub function: u32,
    /// Offset of its registers in the register file.
    pub registers: u32,
    /// Start of its variables in local memory.
    pub local: u32,
    /// The call site it was called from.
    pub site: u32,
    /// Where the caller goes on.
    pub return_to: u32,
}

/// Whether a group can run.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// It can.
    Ready,
    /// It waits at a barrier; whether it was counted there.
    Barrier(Arrival, bool),
    /// It waits for lanes to join it; whether it tried again since something changed.
    Converge(bool),
}

/// Lanes of a warp that run together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Next instruction.
    pub pc: u32,
    /// Its lanes.
    pub mask: Mask,
    /// The current function.
    pub frame: Frame,
    /// Its callers, outermost first.
    pub callers: Vec<Frame>,
    /// Whether it can run.
    pub wait: Wait,
    /// How often it used up its turn; who did so more often comes later.
    pub turns: u32,
}

impl Group {
    fn same_place(&self, other: &Self) -> bool {
        self.pc == other.pc && self.frame == other.frame && self.callers == other.callers
    }
}

/// A warp.
pub struct Warp {
    /// Its registers.
    pub registers: Buffer,
    /// Local memory of its lanes.
    pub local: Buffer,
    /// Groups that do not run now.
    pub groups: Vec<Group>,
    /// Lanes that have not ended.
    pub alive: Mask,
    /// The launch and warp number that the constant registers were filled for.
    pub filled_for: (u64, u32),
}

impl Warp {
    /// A warp without memory.
    pub fn new() -> Self {
        Self { registers: Buffer::new(0), local: Buffer::new(0), groups: vec![], alive: 0, filled_for: (0, u32::MAX) }
    }

    /// Whether some group can run.
    pub fn is_ready(&self) -> bool {
        self.groups.iter().any(|group| matches!(group.wait, Wait::Ready))
    }

    /// How many groups can run.
    pub fn ready(&self) -> usize {
        self.groups.iter().filter(|group| matches!(group.wait, Wait::Ready)).count()
    }

    /// Adds a group that can run, merging it with one at the same place.
    pub fn push(&mut self, group: Group) {
        for other in &mut self.groups {
            if matches!(other.wait, Wait::Ready) && other.same_place(&group) {
                other.mask |= group.mask;
                other.turns = other.turns.max(group.turns);
                return;
            }
        }
        self.groups.push(group);
    }

    /// Adds a group that waits, merging it with one that waits at the same place. Returns whether it merged.
    pub fn park(&mut self, group: Group) -> bool {
        for other in &mut self.groups {
            let same_kind = match (&mut other.wait, &group.wait) {
                (Wait::Barrier(arrival, counted), Wait::Barrier(joining, _)) if !*counted => {
                    if let (Some((_, bits, _)), Some((_, more, _))) = (&mut arrival.reduction, joining.reduction) {
                        *bits |= more;
                    }
                    true
                }
                (Wait::Converge(retried), Wait::Converge(_)) => {
                    *retried = false;
                    true
                }
                _ => false,
            };
            if same_kind && other.same_place(&group) {
                other.mask |= group.mask;
                if matches!(other.wait, Wait::Converge(_)) {
                    other.wait = Wait::Ready;
                }
                return true;
            }
        }
        self.groups.push(group);
        false
    }

    /// Takes the group that should run next.
    pub fn take_next(&mut self) -> Option<Group> {
        let next = self
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group)| matches!(group.wait, Wait::Ready))
            .min_by_key(|(_, group)| (group.turns, usize::MAX - group.callers.len(), group.pc))?
            .0;
        Some(self.groups.swap_remove(next))
    }

    /// The instruction at which the running group should give way to or merge with another.
    pub fn join(&self, running: &Group) -> u32 {
        self.groups
            .iter()
            .filter(|group| {
                matches!(group.wait, Wait::Ready)
                    && group.turns == running.turns
                    && group.frame == running.frame
                    && group.callers == running.callers
            })
            .map(|group| group.pc)
            .min()
            .unwrap_or(u32::MAX)
    }

    /// Lets groups that wait for lanes try again.
    pub fn retry(&mut self, already_tried_too: bool) -> bool {
        let mut any = false;
        for group in &mut self.groups {
            if let Wait::Converge(retried) = group.wait
                && (already_tried_too || !retried)
            {
                group.wait = Wait::Ready;
                any = true;
            }
        }
        any
    }
}

impl Default for Warp {
    fn default() -> Self {
        Self::new()
    }
}
