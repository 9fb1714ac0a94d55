//! Work that is recorded once and runs again by one call, instead of one call for each of its kernels.

use cudarc::driver::{CudaGraph, sys};

use super::Gpu;
use super::gate::{Closed, Runs};
use super::memory::Memory;
use super::repeating::Attempt;
use crate::error::{Error, Result};

/// Recorded work, with what it works on: everything that the recording named stays allocated as long as it does.
pub struct Graph<K> {
    graph: CudaGraph,
    gpu: Gpu,
    kept: K,
    /// What was given back during the recording.
    named: Vec<Memory>,
}

impl<K> Drop for Graph<K> {
    fn drop(&mut self) {
        self.named.drain(..).for_each(|memory| self.gpu.give_back(memory));
    }
}

// SAFETY: any thread may use the driver's handles of a graph as long as no two do at once; a Graph is not Sync, and its
// methods make the context current where they run.
unsafe impl<K: Send> Send for Graph<K> {}

impl<K> std::fmt::Debug for Graph<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "a graph on {:?}", self.gpu)
    }
}

impl Gpu {
    /// Keeps other threads from queueing work as long as this one records.
    pub(super) fn close(&self, runs: Runs) -> Result<Closed<'_>> {
        self.notice();
        let nested = || Error::device(format!("{self:?}"), "recording a graph", "this thread records one already");
        self.0.gate.close(runs).ok_or_else(nested)
    }

    /// Records what `work` queues on this device; nothing of it runs yet. Every launch repeats it with the same arguments
    /// at the same places, so `kept` must own what it reads and writes; what `work` allocates must be given back by it.
    /// Other threads that queue work on this device wait meanwhile. `work` runs again if the first recording lacked kernels
    /// that were not loaded, or memory.
    pub fn record<K>(&self, kept: K, mut work: impl FnMut(&K) -> Result<()>) -> Result<Graph<K>> {
        let (graph, named) = self.until_complete(|| self.record_once(|| work(&kept)))?;
        Ok(Graph { graph, gpu: self.clone(), kept, named })
    }

    /// A graph, and the memory that it works on and that nobody else has any more.
    fn record_once(&self, work: impl FnOnce() -> Result<()>) -> Result<Attempt<(CudaGraph, Vec<Memory>)>> {
        let closed = self.close(Runs::Often)?;
        let stream = &self.0.stream;
        // Relaxed: memory is allocated meanwhile, and no other thread can queue anything on this stream.
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        stream.begin_capture(mode).map_err(|e| self.error("recording a graph", e))?;
        let worked = work();
        // Ended whatever came of the work: a stream left recording would run nothing any more.
        let recorded = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        let (named, lacking) = (self.take_kept(), self.take_missing());
        drop(closed);
        let nothing = || Error::device(format!("{self:?}"), "recording a graph", "nothing was recorded");
        let recorded = recorded.map_err(|e| self.error("recording a graph", e));
        let graph = worked.and_then(|()| recorded?.ok_or_else(nothing));
        match graph {
            Ok(graph) if lacking.is_empty() => Ok(Attempt { made: Ok((graph, named)), lacking }),
            // Of no use, or none.
            graph => {
                named.into_iter().for_each(|memory| self.give_back(memory));
                Ok(Attempt { made: graph.map(|graph| (graph, Vec::new())), lacking })
            }
        }
    }
}

impl<K> Graph<K> {
    /// Queues the recorded work.
    pub fn launch(&self) -> Result<()> {
        let _turn = self.gpu.turn();
        self.graph.launch().map_err(|e| self.gpu.error("launching a graph", e))
    }

    /// What it works on.
    pub fn kept(&self) -> &K {
        &self.kept
    }
}
