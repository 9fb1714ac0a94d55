//! Adding up gradients over all ranks, while the rest of a step goes on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::group::Group;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::{Later, Tensor};

/// Adds up tensors over all ranks. Every rank starts the same buckets in the same order; their sums have the same bits on all
/// of them, and by every implementation.
pub trait Reduce: Send {
    /// Begins with a bucket of tensors, and comes back while it is under way.
    fn start(&mut self, bucket: Vec<Tensor>) -> Result<()>;

    /// The sums of the bucket that was started first of those that are under way, where the tensors lay.
    fn finish(&mut self) -> Result<Vec<Tensor>>;

    /// How it goes from rank to rank, in words.
    fn way(&self) -> &'static str;
}

/// A bucket on its way through the host.
struct Job {
    shapes: Vec<Vec<usize>>,
    values: Vec<Later>,
    /// Where it came from; `None` for the host.
    gpu: Option<Gpu>,
}

/// Sums by messages between the ranks ([`Group::sum`]): over TCP, or within a process. What lies on a device is copied to the
/// host and back.
pub struct Exchange {
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    sums: Receiver<Result<Vec<Tensor>>>,
    thread: Option<JoinHandle<()>>,
    way: &'static str,
}

impl Exchange {
    /// Among these ranks, by a thread of its own: so the others' gradients come in while this rank computes.
    pub fn among(group: &Arc<Group>) -> Result<Exchange> {
        let ((jobs, queue), (post, sums)) = (channel::<Job>(), channel());
        let way = if group.by_tcp() { "TCP" } else { "copies through the host" };
        let group = group.clone();
        let work = move || {
            for job in queue {
                let done = job.run(&group);
                let failed = done.is_err();
                if post.send(done).is_err() || failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("gradients".into()).spawn(work);
        let thread = thread.map_err(|e| Error::Rank(format!("cannot start a thread: {e}")))?;
        Ok(Exchange { jobs: Some(jobs), sums, thread: Some(thread), way })
    }
}

impl Job {
    fn run(self, group: &Group) -> Result<Vec<Tensor>> {
        let _span = crate::span!("gradients of all ranks");
        let mut all = Vec::new();
        for values in self.values {
            all.extend(values.wait()?);
        }
        group.sum(&mut all)?;
        let mut rest = &all[..];
        let tensor = |shape: Vec<usize>| {
            let (values, others) = rest.split_at(shape.iter().product());
            rest = others;
            Tensor::new(shape, values.to_vec())?.to(self.gpu.as_ref())
        };
        self.shapes.into_iter().map(tensor).collect()
    }
}

impl Reduce for Exchange {
    fn start(&mut self, bucket: Vec<Tensor>) -> Result<()> {
        let gpu = bucket.iter().find_map(Tensor::gpu).cloned();
        let shapes = bucket.iter().map(|tensor| tensor.shape().to_vec()).collect();
        let values = bucket.into_iter().map(Tensor::later).collect::<Result<_>>()?;
        // One that ended has said why, which `finish` tells.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(Job { shapes, values, gpu }));
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Tensor>> {
        self.sums.recv().unwrap_or_else(|_| Err(Error::Rank("the thread that adds gradients ended".into())))
    }

    fn way(&self) -> &'static str {
        self.way
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It ends when its queue does, or with the group.
            let _ = thread.join();
        }
    }
}
