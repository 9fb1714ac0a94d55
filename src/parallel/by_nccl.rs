//! Adding up gradients by NCCL: it carries parts from device to device, our own kernel adds them in the order of the ranks. So
//! the sums have the bits that they have without it, on any number of devices; its own sums do not.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::group::Group;
use super::peers::room;
use super::reduce::{Bucket, Way};
use crate::device::Gpu;
use crate::device::cuda::{Communicator, Exposed, Nccl, NcclId};
use crate::error::{Error, Result};
use crate::guard;
use crate::ops::add_on;

/// How often to look whether a bucket is there.
const TICK: Duration = Duration::from_micros(20);

/// The way of NCCL.
pub(super) struct ByNccl {
    group: Arc<Group>,
    communicator: Communicator,
    others: Option<Arc<Exposed>>,
    sum: Option<Arc<Exposed>>,
}

impl ByNccl {
    /// Of a rank on this device; or why the ranks do not use it. All find the same.
    pub fn new(group: &Arc<Group>, gpu: &Gpu) -> Result<Result<ByNccl, String>> {
        let found = Nccl::load();
        let mine = match &found {
            Ok(nccl) => format!("+{}", nccl.version()),
            Err(why) => why.clone(),
        };
        let all = group.gather(mine.as_bytes())?;
        let all: Vec<String> = all.iter().map(|said| String::from_utf8_lossy(said).into_owned()).collect();
        if let Some((rank, why)) = all.iter().enumerate().find(|(_, said)| !said.starts_with('+')) {
            return Ok(Err(format!("of rank {rank}, {why}")));
        }
        if all.iter().any(|said| *said != all[0]) {
            let versions: Vec<&str> = all.iter().map(|said| said.trim_start_matches('+')).collect();
            return Ok(Err(format!("the ranks have its versions {}", versions.join(", "))));
        }
        let Ok(nccl) = found else { return Ok(Err(mine)) };
        // The name, or why there is none.
        let named = match group.leads() {
            true => nccl.id().map_or_else(|why| why.to_string().into_bytes(), |id| id.to_vec()),
            false => Vec::new(),
        };
        let named = group.broadcast(named)?;
        let Ok(id) = NcclId::try_from(&named[..]) else {
            return Ok(Err(format!("of rank 0, {}", String::from_utf8_lossy(&named))));
        };
        let (beside, rank, size) = (gpu.beside()?, group.rank(), group.size());
        let joined = guard::within(group.deadline().as_secs().max(1), move || nccl.join(&beside, id, rank, size));
        let joined = match joined {
            Ok(joined) => joined,
            Err(guard::Failure::Broken(why)) => Err(why),
            Err(guard::Failure::Late) => Err(format!("rank {rank} did not join within the deadline")),
        };
        // One that failed leaves the others a communicator that they cannot use.
        let all = group.gather(joined.as_ref().err().cloned().unwrap_or_default().as_bytes())?;
        let failed = all.iter().find(|why| !why.is_empty()).map(|why| String::from_utf8_lossy(why).into_owned());
        Ok(match (joined, failed) {
            (Ok(communicator), None) => Ok(ByNccl { group: group.clone(), communicator, others: None, sum: None }),
            (Ok(mut communicator), Some(why)) => {
                communicator.give_up();
                Err(why)
            }
            (Err(why), _) => Err(why),
        })
    }

    /// Waits until all that was queued is done, unless a rank is lost or late.
    fn wait(&mut self) -> Result<()> {
        let Some(mark) = self.communicator.gpu().mark()? else { return Ok(()) };
        let start = Instant::now();
        let done = loop {
            if mark.is_past()? {
                break Ok(());
            }
            let late = start.elapsed() > self.group.deadline();
            let failed = match late {
                true => Err(Error::Rank("NCCL did not deliver gradients within the deadline (--deadline)".into())),
                false => self.group.check().and_then(|()| self.communicator.check()),
            };
            if failed.is_err() {
                break failed;
            }
            thread::sleep(TICK);
        };
        if done.is_err() {
            self.communicator.give_up();
        }
        done
    }
}

impl Way for ByNccl {
    fn gpu(&self) -> &Gpu {
        self.communicator.gpu()
    }

    fn add(&mut self, Bucket { values, len }: Bucket) -> Result<()> {
        let (group, gpu) = (self.group.clone(), self.communicator.gpu().clone());
        let (mine, rank) = (group.part(len), group.rank());
        let others = room(&mut self.others, &gpu, mine.len() * (group.size() - 1))?;
        let sum = room(&mut self.sum, &gpu, mine.len())?;
        let (own, total) = (values.ptr(mine.start, mine.len())?, sum.ptr(0, mine.len())?);
        let (mut to, mut from, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut to_later, mut from_later) = (Vec::new(), Vec::new());
        for other in 0..group.size() {
            if other == rank {
                parts.push(own);
                continue;
            }
            let theirs = group.part_of(len, other);
            let place = others.ptr(from.len() * mine.len(), mine.len())?;
            parts.push(place);
            from.push((other, place, mine.len()));
            to.push((other, values.ptr(theirs.start, theirs.len())?, theirs.len()));
            to_later.push((other, total, mine.len()));
            from_later.push((other, values.ptr(theirs.start, theirs.len())?, theirs.len()));
        }
        self.communicator.exchange(&to, &from)?;
        add_on(&gpu, total, &parts, mine.len())?;
        self.communicator.exchange(&to_later, &from_later)?;
        Exposed::copy_within(&gpu, own, total, mine.len())?;
        self.wait()?;
        let sent: usize = to.iter().chain(&to_later).map(|(_, _, count)| count).sum();
        group.count(sent * size_of::<f32>());
        Ok(())
    }

    fn name(&self) -> String {
        format!("NCCL {}", self.communicator.version())
    }
}
