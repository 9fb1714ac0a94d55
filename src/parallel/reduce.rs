//! Adding up gradients over all ranks, while the rest of a step goes on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::by_nccl::ByNccl;
use super::group::Group;
use super::peers::{Board, Peers, room};
use crate::device::Gpu;
use crate::device::cuda::{Exposed, Mark};
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
    fn way(&self) -> String;
}

/// A bucket on its way through the host.
struct Job {
    shapes: Vec<Vec<usize>>,
    values: Vec<Later>,
    /// Where it came from; `None` for the host.
    gpu: Option<Gpu>,
}

/// Does buckets one after the other, in a thread of its own: so the others' gradients come in while this rank computes.
struct Worker<J, R> {
    /// `None` only while it is dropped.
    jobs: Option<Sender<J>>,
    done: Receiver<Result<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static, R: Send + 'static> Worker<J, R> {
    fn new(mut work: impl FnMut(J) -> Result<R> + Send + 'static) -> Result<Worker<J, R>> {
        let ((jobs, queue), (post, done)) = (channel::<J>(), channel());
        let work = move || {
            for job in queue {
                let result = work(job);
                let failed = result.is_err();
                if post.send(result).is_err() || failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("gradients".into()).spawn(work);
        let thread = thread.map_err(|e| Error::Rank(format!("cannot start a thread: {e}")))?;
        Ok(Worker { jobs: Some(jobs), done, thread: Some(thread) })
    }

    fn start(&self, job: J) {
        // One that ended has said why, which `finish` tells.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }

    fn finish(&self) -> Result<R> {
        self.done.recv().unwrap_or_else(|_| Err(Error::Rank("the thread that adds gradients ended".into())))
    }
}

impl<J, R> Drop for Worker<J, R> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It ends when its queue does, or with the group.
            let _ = thread.join();
        }
    }
}

/// Sums by messages between the ranks ([`Group::sum`]): over TCP, or within a process. What lies on a device is copied to the
/// host and back.
pub struct Exchange {
    worker: Worker<Job, Vec<Tensor>>,
    way: String,
}

impl Exchange {
    /// Among these ranks; `reason` says why by no other way.
    fn among(group: &Arc<Group>, reason: Option<String>) -> Result<Exchange> {
        let way = with_reason(if group.by_tcp() { "TCP" } else { "the host's memory" }.into(), reason);
        let group = group.clone();
        Ok(Exchange { worker: Worker::new(move |job: Job| job.run(&group))?, way })
    }
}

impl Job {
    fn run(self, group: &Group) -> Result<Vec<Tensor>> {
        let _span = crate::span!("gradients of all ranks");
        let mut all = Vec::new();
        for values in self.values {
            all.extend_from_slice(values.wait()?.data());
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
        self.worker.start(Job { shapes, values, gpu });
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Tensor>> {
        self.worker.finish()
    }

    fn way(&self) -> String {
        self.way.clone()
    }
}

/// A bucket in a device's memory.
pub(super) struct Bucket {
    /// Its values, which the sums replace.
    pub values: Arc<Exposed>,
    /// How many there are.
    pub len: usize,
}

/// How devices add up buckets without the host.
pub(super) trait Way: Send {
    /// The device, with a stream of its own.
    fn gpu(&self) -> &Gpu;

    /// Adds up the bucket's values over all ranks, and waits until they are there.
    fn add(&mut self, bucket: Bucket) -> Result<()>;

    /// In words.
    fn name(&self) -> String;
}

/// Tensors that become a bucket in a device's memory, once it has come to the mark.
struct DeviceJob {
    tensors: Vec<Tensor>,
    ready: Option<Mark>,
    bucket: Bucket,
}

/// Sums in the devices' memory: the bucket is one array, which goes from device to device as its way knows.
pub struct OnDevice {
    gpu: Gpu,
    worker: Worker<DeviceJob, ()>,
    /// Room for two buckets: while one is copied back, the next is added up.
    room: [Option<Arc<Exposed>>; 2],
    under_way: VecDeque<(Arc<Exposed>, Vec<Vec<usize>>)>,
    started: usize,
    way: String,
}

/// Adds up gradients that lie on this device, or with `None` on the host, in the fastest way that the ranks have: NCCL; copies
/// between devices of one process, which show each other their memory on this board; messages.
pub fn reduce(group: &Arc<Group>, board: Option<&Arc<Board>>, gpu: Option<&Gpu>) -> Result<Box<dyn Reduce>> {
    let Some(gpu) = gpu else { return Ok(Box::new(Exchange::among(group, None)?)) };
    let without = match ByNccl::new(group, gpu)? {
        Ok(way) => return Ok(Box::new(OnDevice::by(gpu, way, None)?)),
        Err(why) => format!("not by NCCL: {why}"),
    };
    Ok(match board {
        Some(board) => Box::new(OnDevice::by(gpu, Peers::new(group, board, gpu)?, Some(without))?),
        None => Box::new(Exchange::among(group, Some(without))?),
    })
}

/// A way in words, with why it is none that is faster.
fn with_reason(way: String, reason: Option<String>) -> String {
    reason.map_or(way.clone(), |reason| format!("{way} ({reason})"))
}

impl OnDevice {
    fn by(gpu: &Gpu, mut way: impl Way + 'static, reason: Option<String>) -> Result<OnDevice> {
        let name = with_reason(way.name(), reason);
        let work = move |DeviceJob { tensors, ready, bucket }: DeviceJob| {
            let _span = crate::span!("gradients of all ranks");
            ready.iter().try_for_each(|ready| way.gpu().wait_for(ready))?;
            let mut start = 0;
            for tensor in &tensors {
                let to = bucket.values.ptr(start, tensor.len())?;
                Exposed::copy_within(way.gpu(), to, tensor.ptr(), tensor.len())?;
                start += tensor.len();
            }
            way.add(bucket)?;
            // Not before: their memory is given back in the order of another stream.
            drop(tensors);
            Ok(())
        };
        let (worker, room) = (Worker::new(work)?, [None, None]);
        Ok(OnDevice { gpu: gpu.clone(), worker, room, under_way: VecDeque::new(), started: 0, way: name })
    }
}

impl Reduce for OnDevice {
    fn start(&mut self, tensors: Vec<Tensor>) -> Result<()> {
        let len = tensors.iter().map(Tensor::len).sum();
        let values = room(&mut self.room[self.started % 2], &self.gpu, len)?;
        self.started += 1;
        self.under_way.push_back((values.clone(), tensors.iter().map(|tensor| tensor.shape().to_vec()).collect()));
        // What was copied back from this room before is done before the mark, too.
        let ready = self.gpu.mark()?;
        self.worker.start(DeviceJob { tensors, ready, bucket: Bucket { values, len } });
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Tensor>> {
        self.worker.finish()?;
        let Some((values, shapes)) = self.under_way.pop_front() else {
            return Err(Error::Rank("no gradients are under way".into()));
        };
        let mut start = 0;
        let tensor = |shape: Vec<usize>| {
            let len = shape.iter().product();
            let memory = self.gpu.alloc("gradients", len)?;
            Exposed::copy_within(&self.gpu, memory.ptr(), values.ptr(start, len)?, len)?;
            start += len;
            Tensor::on_device(shape, memory)
        };
        shapes.into_iter().map(tensor).collect()
    }

    fn way(&self) -> String {
        self.way.clone()
    }
}
