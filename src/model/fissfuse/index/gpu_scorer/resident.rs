//! A kernel that stays on the device and scores one mention after the other.

use std::sync::Arc;
use std::time::Duration;

use super::GpuScorer;
use super::room::{Asked, Room};
use super::tables::Tables;
use crate::device::cuda::{Resident, Staying};
use crate::error::Result;
use crate::ops::link::{Launch, Scores};

/// What it works on.
pub(super) struct Kept {
    room: Room,
    tables: Arc<Tables>,
}

impl GpuScorer {
    /// From now on, prepared mentions are scored by a kernel that stays on the device until none came for `idle`: a mention needs no
    /// launch then, and the scores are the same to the bit. It takes up to three quarters of the multiprocessors and keeps them busy
    /// with waiting.
    pub fn keep_resident(&mut self, idle: Duration) {
        self.idle = Some(idle);
        self.resident = None;
    }

    /// Whether it was told to.
    pub fn is_resident(&self) -> bool {
        self.idle.is_some()
    }

    /// How often the kernel that stays was launched: first, when it had left, and when it was made again for more room.
    pub fn resident_launches(&self) -> usize {
        self.left + self.resident.as_ref().map_or(0, Resident::launches)
    }

    /// Whether it is on the device, as far as is known.
    pub fn is_on_device(&self) -> bool {
        self.resident.as_ref().is_some_and(Resident::is_on_device)
    }

    /// Scores by the kernel that stays.
    pub(super) fn ask(&mut self, idle: Duration, tables: Arc<Tables>, asked: &Asked) -> Result<Vec<f32>> {
        let fits = |resident: &Resident<Kept>| {
            let Kept { room, tables: before } = resident.kept();
            room.holds(asked) && Arc::ptr_eq(before, &tables)
        };
        let mut resident = match self.resident.take() {
            Some(resident) if fits(&resident) => resident,
            before => {
                let room = Room::new(asked, before.as_ref().map(|before| &before.kept().room));
                self.left += before.as_ref().map_or(0, Resident::launches);
                drop(before);
                self.make_resident(idle, tables, room)?
            }
        };
        let room = resident.kept().room.clone();
        let scores = resident.ask(
            |words| self.write(words, &room, asked),
            |scores| self.scores_of(scores, room.candidates, asked.candidates.len()),
        );
        self.resident = Some(resident);
        scores
    }

    fn make_resident(&self, idle: Duration, tables: Arc<Tables>, room: Room) -> Result<Resident<Kept>> {
        let fused = tables.entities().fused.len();
        let sizes = (self.words(&room, fused), self.kinds.len() * room.candidates);
        self.gpu.resident(idle, sizes, |request, answer| {
            let scores = Scores { at: answer, capacity: room.candidates };
            let place = self.place_of(&room, fused, request);
            let Launch { kernel, grid, args } =
                self.weights.launch_of(&self.gpu, &tables.entities(), &place, scores, true)?;
            Ok(Staying { kernel, grid, args, kept: Kept { room, tables } })
        })
    }
}
