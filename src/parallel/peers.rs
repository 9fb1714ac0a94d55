//! Adding up gradients of devices of one process: copies from device to device, and our own kernel.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::group::Group;
use super::reduce::{Bucket, Way};
use crate::device::Gpu;
use crate::device::cuda::Exposed;
use crate::error::{Error, Result};
use crate::ops::add_on;

/// Where the ranks of a process show each other their memory.
#[derive(Debug)]
pub struct Board(Vec<Mutex<Option<Shown>>>);

/// What a rank shows of a bucket.
#[derive(Clone, Debug)]
struct Shown {
    /// All its values.
    values: Arc<Exposed>,
    /// Room for the sum of its part.
    sum: Arc<Exposed>,
}

impl Board {
    /// For so many ranks.
    pub fn new(ranks: usize) -> Board {
        Board((0..ranks).map(|_| Mutex::new(None)).collect())
    }

    fn show(&self, rank: usize, shown: Shown) {
        *self.0[rank].lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }

    fn look(&self, rank: usize) -> Result<Shown> {
        let shown = self.0[rank].lock().unwrap_or_else(PoisonError::into_inner).clone();
        shown.ok_or_else(|| Error::Rank(format!("rank {rank} showed no gradients")))
    }
}

/// The way through the devices' memory.
pub(super) struct Peers {
    group: Arc<Group>,
    board: Arc<Board>,
    /// The device, with a stream of its own.
    gpu: Gpu,
    /// Other ranks' values of this rank's part, one after the other.
    others: Option<Arc<Exposed>>,
    sum: Option<Arc<Exposed>>,
    direct: bool,
}

impl Peers {
    /// Of a rank on this device; the group's ranks all have this board.
    pub fn new(group: &Arc<Group>, board: &Arc<Board>, gpu: &Gpu) -> Result<Peers> {
        let gpu = gpu.beside()?;
        let here = |gpu: &Gpu| Ok::<_, Error>(Arc::new(gpu.expose(0)?));
        board.show(group.rank(), Shown { values: here(&gpu)?, sum: here(&gpu)? });
        group.gather(&[])?;
        let mut direct = true;
        for rank in (0..group.size()).filter(|&rank| rank != group.rank()) {
            direct &= gpu.reach(board.look(rank)?.values.gpu())?;
        }
        // Said of all or of none, so that all say the same.
        let direct = group.gather(&[u8::from(direct)])?.iter().all(|direct| direct == &[1]);
        Ok(Peers { group: group.clone(), board: board.clone(), gpu, others: None, sum: None, direct })
    }
}

/// Room for so many values, that there was or anew.
pub(super) fn room(place: &mut Option<Arc<Exposed>>, gpu: &Gpu, len: usize) -> Result<Arc<Exposed>> {
    match place {
        Some(there) if there.len() >= len => Ok(there.clone()),
        _ => Ok(place.insert(Arc::new(gpu.expose(len)?)).clone()),
    }
}

impl Way for Peers {
    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Everybody copies its part of all others' values, adds them in the order of the ranks, and copies the others' sums. The
    /// ranks wait for each other before they read what others wrote. They need not before they write again: that comes after
    /// all have begun with the next bucket, and a bucket's values are not those of the one before.
    fn add(&mut self, Bucket { values, len }: Bucket) -> Result<()> {
        let (group, gpu) = (&self.group, &self.gpu);
        let (mine, rank) = (group.part(len), group.rank());
        let others = room(&mut self.others, gpu, mine.len() * (group.size() - 1))?;
        let sum = room(&mut self.sum, gpu, mine.len())?;
        self.board.show(rank, Shown { values: values.clone(), sum: sum.clone() });
        gpu.synchronize()?;
        group.gather(&[])?;
        let shown = (0..group.size()).map(|rank| self.board.look(rank)).collect::<Result<Vec<_>>>()?;
        let (mut parts, mut place) = (Vec::new(), 0);
        for (other, theirs) in shown.iter().enumerate() {
            if other == rank {
                parts.push(values.ptr(mine.start, mine.len())?);
                continue;
            }
            others.copy_from(gpu, place, &theirs.values, mine.start, mine.len())?;
            parts.push(others.ptr(place, mine.len())?);
            place += mine.len();
        }
        add_on(gpu, sum.ptr(0, mine.len())?, &parts, mine.len())?;
        gpu.synchronize()?;
        group.gather(&[])?;
        let mut moved = place;
        for (other, theirs) in shown.iter().enumerate() {
            let Range { start, end } = group.part_of(len, other);
            let count = end - start;
            if other == rank {
                Exposed::copy_within(gpu, values.ptr(start, count)?, sum.ptr(0, count)?, count)?;
            } else {
                values.copy_from(gpu, start, &theirs.sum, 0, count)?;
                moved += count;
            }
        }
        gpu.synchronize()?;
        group.count(moved * size_of::<f32>());
        Ok(())
    }

    fn name(&self) -> String {
        match self.direct {
            true => "copies from device to device (peer access)".into(),
            false => "copies from device to device, which the driver takes through the host (no peer access)".into(),
        }
    }
}
