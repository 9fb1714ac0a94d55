//! Graphs, and recording them from streams.
//!
//! A graph is the list of its steps in the order in which they were recorded, which respects all dependencies.

use std::collections::HashMap;
use std::sync::Arc;

use super::Driver;
use super::code::*;
use super::handles::Kind;
use super::work::Work;

/// A capture as a stream sees it.
#[derive(Clone)]
pub struct Capture {
    /// The graph that is being recorded.
    pub graph: u64,
    /// The stream that the capture began in.
    pub origin: u64,
    /// How many steps of each stream this stream's next step comes after.
    pub covers: HashMap<u64, usize>,
}

/// A graph.
#[derive(Default)]
pub struct Graph {
    /// Its steps.
    pub steps: Vec<Work>,
    /// Memory that its steps allocated.
    pub memory: Vec<u64>,
    recording: Option<Recording>,
}

/// A capture under way.
struct Recording {
    /// 0: no unsafe calls by any thread; 1: none by this thread; 2: all are allowed.
    mode: u32,
    thread: std::thread::ThreadId,
    /// Steps recorded per stream.
    counts: HashMap<u64, usize>,
    broken: bool,
}

impl Kind for Graph {
    const TAG: u64 = 0x54;
}

/// A graph ready to run.
pub struct GraphExec {
    /// Its steps.
    pub steps: Arc<Vec<Work>>,
}

impl Kind for GraphExec {
    const TAG: u64 = 0x55;
}

impl Driver {
    fn recording(&mut self, graph: u64) -> Option<&mut Recording> {
        self.graphs.get_mut(graph).ok()?.recording.as_mut()
    }

    /// Spoils a capture.
    fn spoil(&mut self, graph: u64) {
        if let Some(recording) = self.recording(graph) {
            recording.broken = true;
        }
    }

    /// Begins a capture.
    pub fn begin_capture(&mut self, stream: u64, mode: u32) -> Result<(), Code> {
        self.healthy()?;
        if mode > 2 {
            return Err(INVALID_VALUE);
        }
        let legacy = self.context()?.legacy;
        if stream == legacy {
            super::say("the legacy stream (handle 0) cannot be captured; use a stream of your own");
            return Err(STREAM_CAPTURE_UNSUPPORTED);
        }
        if self.streams.get(stream)?.capture.is_some() {
            return Err(INVALID_VALUE);
        }
        let recording = Recording {
            mode,
            thread: std::thread::current().id(),
            counts: HashMap::from([(stream, 0)]),
            broken: false,
        };
        let graph = self.graphs.add(Graph { recording: Some(recording), ..Graph::default() });
        self.streams.get_mut(stream)?.capture = Some(Capture { graph, origin: stream, covers: HashMap::new() });
        Ok(())
    }

    /// Records a step if the stream is captured; whether it is.
    pub fn record_step(&mut self, stream: u64, work: &Work) -> Result<bool, Code> {
        let Some(capture) = self.streams.get(stream)?.capture.clone() else {
            return self.refuse_implicit(stream).map(|()| false);
        };
        let Some(recording) = self.recording(capture.graph) else {
            return Err(STREAM_CAPTURE_INVALIDATED);
        };
        if recording.broken {
            return Err(STREAM_CAPTURE_INVALIDATED);
        }
        let count = recording.counts.entry(stream).or_default();
        *count += 1;
        let count = *count;
        if let Some(own) = &mut self.streams.get_mut(stream)?.capture {
            own.covers.insert(stream, count);
        }
        self.graphs.get_mut(capture.graph)?.steps.push(work.clone());
        Ok(true)
    }

    /// Work in the legacy stream would wait for blocking streams, which a captured one cannot be waited for.
    fn refuse_implicit(&mut self, stream: u64) -> Result<(), Code> {
        let this = self.streams.get(stream)?;
        let context = this.context;
        if !self.contexts.get(context).is_ok_and(|context| context.legacy == stream) {
            return Ok(());
        }
        let captured = self.streams.iter().find_map(|(_, other)| {
            let capture = other.capture.as_ref()?;
            (other.context == context && !other.non_blocking).then_some(capture.graph)
        });
        match captured {
            None => Ok(()),
            Some(graph) => {
                self.spoil(graph);
                Err(STREAM_CAPTURE_IMPLICIT)
            }
        }
    }

    /// Makes a stream wait for an event inside a capture; whether one is concerned.
    pub fn join_capture(&mut self, stream: u64, event: Option<Capture>, recorded: u64) -> Result<bool, Code> {
        let own = self.streams.get(stream)?.capture.clone();
        match (own, event) {
            (None, None) => Ok(false),
            (Some(own), None) => {
                if recorded == 0 {
                    return Ok(true);
                }
                self.spoil(own.graph);
                Err(STREAM_CAPTURE_ISOLATION)
            }
            (None, Some(event)) => {
                if self.recording(event.graph).is_none() {
                    // The capture has ended: nothing is left to wait for.
                    return Ok(true);
                }
                let legacy = self.contexts.iter().any(|(_, context)| context.legacy == stream);
                if legacy {
                    self.spoil(event.graph);
                    return Err(STREAM_CAPTURE_IMPLICIT);
                }
                if let Some(recording) = self.recording(event.graph) {
                    recording.counts.entry(stream).or_default();
                }
                self.streams.get_mut(stream)?.capture = Some(event);
                Ok(true)
            }
            (Some(own), Some(event)) => {
                if own.graph != event.graph {
                    self.spoil(own.graph);
                    self.spoil(event.graph);
                    return Err(STREAM_CAPTURE_MERGE);
                }
                if let Some(capture) = &mut self.streams.get_mut(stream)?.capture {
                    for (other, count) in event.covers {
                        let covered = capture.covers.entry(other).or_default();
                        *covered = (*covered).max(count);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Ends a capture.
    pub fn end_capture(&mut self, stream: u64) -> Result<u64, Code> {
        let Some(capture) = self.streams.get(stream)?.capture.clone() else {
            return Err(INVALID_VALUE);
        };
        if capture.origin != stream {
            return Err(STREAM_CAPTURE_UNMATCHED);
        }
        let Some(recording) = self.recording(capture.graph) else {
            return Err(STREAM_CAPTURE_INVALIDATED);
        };
        if recording.mode != 2 && recording.thread != std::thread::current().id() {
            return Err(STREAM_CAPTURE_WRONG_THREAD);
        }
        let broken = recording.broken;
        let unjoined = recording
            .counts
            .iter()
            .any(|(other, count)| *other != stream && capture.covers.get(other).copied().unwrap_or(0) < *count);
        for (_, other) in self.streams.iter_mut() {
            if other.capture.as_ref().is_some_and(|other| other.graph == capture.graph) {
                other.capture = None;
            }
        }
        if broken || unjoined {
            self.destroy_graph(capture.graph)?;
            return Err(if broken { STREAM_CAPTURE_INVALIDATED } else { STREAM_CAPTURE_UNJOINED });
        }
        self.graphs.get_mut(capture.graph)?.recording = None;
        Ok(capture.graph)
    }

    /// 0: not captured, 1: captured, 2: spoiled.
    pub fn capture_status(&mut self, stream: u64) -> Result<(u32, u64), Code> {
        let legacy = self.context()?.legacy;
        let Some(graph) = self.streams.get(stream)?.capture.as_ref().map(|capture| capture.graph) else {
            if stream == legacy {
                self.refuse_implicit(stream)?;
            }
            return Ok((0, 0));
        };
        let broken = self.recording(graph).is_none_or(|recording| recording.broken);
        Ok((1 + u32::from(broken), graph))
    }

    /// Waiting for a captured stream makes no sense and spoils the capture.
    pub fn refuse_in_capture(&mut self, stream: u64) -> Result<(), Code> {
        let Some(graph) = self.streams.get(stream)?.capture.as_ref().map(|capture| capture.graph) else {
            return self.refuse_implicit(stream);
        };
        self.spoil(graph);
        Err(STREAM_CAPTURE_UNSUPPORTED)
    }

    /// Calls that may wait, such as plain allocations, are not allowed during a capture unless it is relaxed.
    pub fn refuse_unsafe(&mut self) -> Result<(), Code> {
        let thread = std::thread::current().id();
        let forbidding = self.graphs.iter().find_map(|(handle, graph)| {
            let recording = graph.recording.as_ref()?;
            (recording.mode == 0 || recording.mode == 1 && recording.thread == thread).then_some(*handle)
        });
        match forbidding {
            None => Ok(()),
            Some(graph) => {
                self.spoil(graph);
                Err(STREAM_CAPTURE_UNSUPPORTED)
            }
        }
    }

    /// Makes a graph ready to run.
    pub fn instantiate(&mut self, graph: u64) -> Result<u64, Code> {
        let steps = Arc::new(self.graphs.get(graph)?.steps.clone());
        Ok(self.execs.add(GraphExec { steps }))
    }

    /// Runs a graph in a stream.
    pub fn launch_graph(&mut self, exec: u64, stream: u64) -> Result<(), Code> {
        let steps = self.execs.get(exec)?.steps.clone();
        self.submit(stream, Work::Graph(steps))
    }

    /// Ends a graph.
    pub fn destroy_graph(&mut self, graph: u64) -> Result<(), Code> {
        let graph = self.graphs.remove(graph)?;
        graph.memory.iter().try_for_each(|start| self.free_now(*start))
    }
}
