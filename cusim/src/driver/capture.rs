//! Recording graphs from streams, and what must not be called meanwhile.
//!
//! Two kinds of calls are refused. Those that conflict with a capture always are: waiting for a captured stream, for a
//! context that has one, or for an event that a capture recorded. Those that are potentially unsafe, because they may wait
//! or are not seen by the capture (plain allocations, loading modules, waiting for anything else), are refused as the modes
//! of the captures and of the calling thread say.

use std::cell::Cell;
use std::collections::HashMap;
use std::thread;

use super::Driver;
use super::code::*;
use super::graph::{Graph, Recording};
use super::work::Work;

/// Modes of captures and of threads.
mod mode {
    pub const GLOBAL: u32 = 0;
    pub const THREAD_LOCAL: u32 = 1;
    pub const RELAXED: u32 = 2;
}

thread_local! {
    /// Whose captures keep this thread from unsafe calls: everybody's global ones and its own, its own, or none.
    static MODE: Cell<u32> = const { Cell::new(mode::GLOBAL) };
}

/// Sets the calling thread's mode; gives the one before.
pub fn exchange_mode(mode: u32) -> Result<u32, Code> {
    if mode > mode::RELAXED { Err(INVALID_VALUE) } else { Ok(MODE.replace(mode)) }
}

/// A capture as a stream sees it.
#[derive(Clone)]
pub struct Capture {
    /// The graph that is being recorded.
    pub graph: u64,
    /// The stream that the capture began in.
    pub origin: u64,
    /// How many steps of each stream this stream's next step comes after.
    pub covers: HashMap<u64, usize>,
    /// The nodes that its next step comes directly after.
    pub after: Vec<usize>,
}

impl Driver {
    fn recording(&mut self, graph: u64) -> Option<&mut Recording> {
        self.graphs.get_mut(graph).ok()?.recording.as_mut()
    }

    /// Spoils a capture.
    pub fn spoil(&mut self, graph: u64) {
        if let Some(recording) = self.recording(graph) {
            recording.broken = true;
        }
    }

    /// Begins a capture.
    pub fn begin_capture(&mut self, stream: u64, mode: u32) -> Result<(), Code> {
        self.healthy()?;
        if mode > mode::RELAXED {
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
        let recording =
            Recording { mode, thread: thread::current().id(), counts: HashMap::from([(stream, 0)]), broken: false };
        let graph = self.graphs.add(Graph { recording: Some(recording), ..Graph::default() });
        let capture = Capture { graph, origin: stream, covers: HashMap::new(), after: vec![] };
        self.streams.get_mut(stream)?.capture = Some(capture);
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
        let node = self.add_node(capture.graph, work.clone(), capture.after)?;
        if let Some(own) = &mut self.streams.get_mut(stream)?.capture {
            own.covers.insert(stream, count);
            own.after = vec![node];
        }
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
                    for node in event.after {
                        if !capture.after.contains(&node) {
                            capture.after.push(node);
                        }
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
        if recording.mode != mode::RELAXED && recording.thread != thread::current().id() {
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

    /// Waiting for a context waits for its streams, so a captured one spoils that, whatever the modes.
    pub fn refuse_in_context(&mut self, context: u64) -> Result<(), Code> {
        let captured = self.streams.iter().filter(|(_, stream)| stream.context == context);
        let graphs: Vec<u64> = captured.filter_map(|(_, stream)| Some(stream.capture.as_ref()?.graph)).collect();
        graphs.iter().for_each(|graph| self.spoil(*graph));
        if graphs.is_empty() { Ok(()) } else { Err(STREAM_CAPTURE_UNSUPPORTED) }
    }

    /// Refuses what is potentially unsafe, such as plain allocations, where a capture forbids it to this thread. That spoils
    /// the capture.
    pub fn refuse_unsafe(&mut self) -> Result<(), Code> {
        let (thread, own_mode) = (thread::current().id(), MODE.get());
        let forbidding = self.graphs.iter().find_map(|(handle, graph)| {
            let recording = graph.recording.as_ref()?;
            let forbids = match recording.mode {
                mode::GLOBAL => own_mode == mode::GLOBAL || recording.thread == thread,
                mode::THREAD_LOCAL => recording.thread == thread,
                _ => false,
            };
            (forbids && own_mode != mode::RELAXED).then_some(*handle)
        });
        match forbidding {
            None => Ok(()),
            Some(graph) => {
                self.spoil(graph);
                Err(STREAM_CAPTURE_UNSUPPORTED)
            }
        }
    }
}
