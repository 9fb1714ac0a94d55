//! Work that is much the same each time, of other sizes: recorded anew, and launched by one call.
//!
//! What is recorded becomes the parameters of the graph that ran before (`cuGraphExecUpdate`), which takes less than making a
//! graph ready; only where there are other kernels, or in another order, one is made ready anew.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::{DriverError, result, sys};

use super::driver::driver;
use super::gate::Runs;
use super::{Gpu, explain};
use crate::error::{Error, Result};

/// A graph as it was recorded.
struct Template(sys::CUgraph);

impl Drop for Template {
    fn drop(&mut self) {
        // SAFETY: the graph is the driver's, ended once; what was made ready from it stays. A device that failed has nothing
        // to be given back.
        let _ = unsafe { result::graph::destroy(self.0) };
    }
}

/// A graph that is ready to run.
struct Ready(sys::CUgraphExec);

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: as for a template; if it is still running, the driver ends it when it is done.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

// SAFETY: any thread may use the driver's handle as long as no two do at once, and a Ready is not Sync.
unsafe impl Send for Ready {}

/// How often a graph was made ready, and how often the one before took new parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Made ready anew: the first, and where kernels were others than before.
    pub made: usize,
    /// Brought up to date.
    pub updated: usize,
}

/// Work that is recorded anew each time.
pub struct Repeating {
    gpu: Gpu,
    ready: Option<Ready>,
    recorded: Recorded,
}

impl std::fmt::Debug for Repeating {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "a repeated graph on {:?}, {:?}", self.gpu, self.recorded)
    }
}

/// `CUgraphExecUpdateResultInfo`, whose first field is a number here: a newer driver may know more outcomes.
#[repr(C)]
struct UpdateInfo {
    outcome: u32,
    nodes: [*mut c_void; 2],
}

/// One attempt to record work.
pub(super) struct Attempt<R> {
    /// What came of it.
    pub made: Result<R>,
    /// Files of kernels that were not loaded: if there are any, what was made is of no use.
    pub lacking: Vec<usize>,
}

impl Gpu {
    /// Records until nothing is lacking: what an attempt gives when all kernels were loaded and there was memory.
    pub(super) fn until_complete<R>(&self, mut record: impl FnMut() -> Result<Attempt<R>>) -> Result<R> {
        let mut reclaimed = false;
        loop {
            let Attempt { made, lacking } = record()?;
            if !lacking.is_empty() {
                self.load_files(&lacking)?;
                continue;
            }
            match made {
                Err(_) if !reclaimed && self.0.cache.was_starved() => {
                    self.reclaim()?;
                    reclaimed = true;
                }
                made => return made,
            }
        }
    }

    /// Work that nothing was recorded of yet.
    pub fn repeating(&self) -> Repeating {
        Repeating { gpu: self.clone(), ready: None, recorded: Recorded::default() }
    }

    /// Gives the driver what is kept of freed memory: what to do when there is none left. Waits for the device.
    pub(super) fn reclaim(&self) -> Result<()> {
        // Nobody records until it is done: blocks that are free again may be what a graph is about to use.
        let stream = self.turn();
        // Taken first: what is given back while this waits may still be in use.
        let free = self.0.cache.take_free();
        let given = stream.synchronize().and_then(|()| self.0.cache.free(free));
        let given = given.and_then(|()| self.0.staging.reclaim());
        given.map_err(|e| self.error("giving memory back", e))
    }
}

impl Repeating {
    /// How its graphs came about.
    pub fn recorded(&self) -> Recorded {
        self.recorded
    }

    /// Records what `work` queues on this device, and launches it; gives what `work` gives. Nothing has run when `work`
    /// returns, so that it must not read what it computes. What it works on must lie on the device already, see
    /// [`super::DeviceBuffer::arrive`]. Other threads that queue work on this device wait meanwhile.
    ///
    /// `work` runs again if a recording lacked kernels that were not loaded, or memory: until it is launched, it must change
    /// nothing but what it allocates.
    pub fn run<R>(&mut self, mut work: impl FnMut() -> Result<R>) -> Result<R> {
        let gpu = self.gpu.clone();
        gpu.until_complete(|| self.record(&mut work))
    }

    fn record<R>(&mut self, work: &mut impl FnMut() -> Result<R>) -> Result<Attempt<R>> {
        let gpu = self.gpu.clone();
        let closed = gpu.close(Runs::Once)?;
        let failed = |error| gpu.error("recording a graph", error);
        let stream = &gpu.0.stream;
        // Relaxed: memory is allocated meanwhile, and no other thread can queue anything on this stream.
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(failed)?;
        let worked = work();
        // Ended whatever came of the work: a stream left recording would run nothing any more.
        // SAFETY: the stream is recorded, by this thread.
        let ended = unsafe { result::stream::end_capture(stream.cu_stream()) };
        let lacking = gpu.take_missing();
        let launched = worked.and_then(|worked| {
            let template = Template(ended.map_err(failed)?);
            // A recording without some of its kernels is made again, and must not run.
            if lacking.is_empty() {
                self.launch(&template)?;
            }
            Ok(worked)
        });
        let kept = gpu.take_kept();
        drop(closed);
        kept.into_iter().for_each(|memory| gpu.give_back(memory));
        Ok(Attempt { made: launched, lacking })
    }

    fn launch(&mut self, template: &Template) -> Result<()> {
        let failed = |doing: &str, error| Error::device(format!("{:?}", self.gpu), doing, explain(error));
        let up_to_date = match &self.ready {
            None => Ok(false),
            // Looked up by hand: cudarc panics where a driver lacks a function.
            Some(_) if !driver()?.updates_graphs => Ok(false),
            Some(ready) => update(ready, template),
        };
        let up_to_date = up_to_date.map_err(|e| failed("updating a graph", e))?;
        if !up_to_date {
            // SAFETY: the template is a whole graph.
            let made = unsafe { result::graph::instantiate(template.0, sys::CUgraphInstantiate_flags(0)) };
            self.ready = Some(Ready(made.map_err(|e| failed("making a graph ready", e))?));
        }
        let Some(ready) = &self.ready else { return Ok(()) };
        // SAFETY: the graph is ready and of this stream's context. What its nodes name is kept by the cache, by whoever gave
        // it to the work, and by the order of the stream.
        let launched = unsafe { result::graph::launch(ready.0, self.gpu.0.stream.cu_stream()) };
        launched.map_err(|e| failed("launching a graph", e))?;
        match up_to_date {
            true => self.recorded.updated += 1,
            false => self.recorded.made += 1,
        }
        Ok(())
    }
}

/// Gives a graph the parameters of another; whether it could take them.
fn update(ready: &Ready, template: &Template) -> Result<bool, DriverError> {
    let mut info = UpdateInfo { outcome: 0, nodes: [ptr::null_mut(); 2] };
    // SAFETY: both graphs are the driver's and used by nobody else; launches that are under way keep their parameters. The
    // driver writes a structure of this layout.
    let code = unsafe { sys::cuGraphExecUpdate_v2(ready.0, template.0, ptr::from_mut(&mut info).cast()) };
    match code {
        sys::CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE => Ok(false),
        code => code.result().map(|()| true),
    }
}
