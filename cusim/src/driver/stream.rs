//! Streams and events: who waits for whom, and when work is done.

use std::collections::VecDeque;
use std::time::Instant;

use super::capture::Capture;
use super::code::*;
use super::config::Asynchrony;
use super::context::current;
use super::handles::Kind;
use super::work::Work;
use super::{Driver, all};

/// Steps that wait in a stream before the oldest are done anyway, so that a program that never waits does not fill
/// the host's memory.
const MAX_QUEUE: usize = 1024;

/// A stream.
pub struct Stream {
    /// Its context.
    pub context: u64,
    /// Whether it runs beside the legacy stream without waiting for it.
    pub non_blocking: bool,
    /// Its priority.
    pub priority: i32,
    /// Steps to do, each with its place in the order of issue.
    pub queue: VecDeque<(u64, Work)>,
    /// Launches that a kernel which is launched early may overlap with.
    pub unfinished: Vec<u64>,
    /// What it records instead of working.
    pub capture: Option<Capture>,
}

impl Kind for Stream {
    const TAG: u64 = 0x52;
}

/// An event.
pub struct Event {
    /// Whether it takes times.
    pub timed: bool,
    /// How often it was recorded.
    pub recorded: u64,
    /// Which recording was done last.
    pub done: u64,
    /// Where it was recorded last.
    pub stream: u64,
    /// When.
    pub time: Option<Instant>,
    /// The capture that recorded it last, and the steps that it stands for.
    pub captured: Option<Capture>,
}

impl Kind for Event {
    const TAG: u64 = 0x53;
}

impl Driver {
    /// Adds a stream.
    pub fn make_stream(&mut self, context: u64, non_blocking: bool, priority: i32) -> u64 {
        self.streams.add(Stream {
            context,
            non_blocking,
            priority,
            queue: VecDeque::new(),
            unfinished: vec![],
            capture: None,
        })
    }

    /// The stream that a handle stands for in the current context.
    pub fn resolve_stream(&mut self, handle: u64) -> Result<u64, Code> {
        let context = self.context()?;
        let stream = match handle {
            0 | 1 => context.legacy,
            2 => context.per_thread,
            handle => handle,
        };
        if self.streams.get(stream)?.context != current() {
            // CUDA wants streams to be used in their own context.
            return Err(INVALID_HANDLE);
        }
        Ok(stream)
    }

    fn is_legacy(&self, stream: u64) -> bool {
        self.contexts.iter().any(|(_, context)| context.legacy == stream)
    }

    /// Adds a step to a stream, and does it now or later as the settings say.
    pub fn submit(&mut self, stream: u64, work: Work) -> Result<(), Code> {
        self.healthy()?;
        if self.record_step(stream, &work)? {
            return Ok(());
        }
        self.issued += 1;
        let issued = self.issued;
        if self.is_idle(stream) && self.config.asynchrony == Asynchrony::Eager {
            // The common case: nothing to wait for.
            let result = self.perform(stream, &work);
            return result.or_else(|code| self.failed(code));
        }
        if work.calls_host() {
            super::callback::watch();
        }
        self.streams.get_mut(stream)?.queue.push_back((issued, work));
        match self.config.asynchrony {
            Asynchrony::Eager => self.drain(stream),
            Asynchrony::Late => self.shorten(stream),
            Asynchrony::Seed(_) => {
                self.shorten(stream)?;
                self.wander()
            }
        }
    }

    /// Adds a step to a stream that is not captured, and waits for it. Whatever fails, the step does not stay behind: what
    /// the host gave for it is the host's again when the call returns.
    pub fn submit_and_finish(&mut self, stream: u64, work: Work) -> Result<(), Code> {
        self.healthy()?;
        self.refuse_in_capture(stream)?;
        self.issued += 1;
        let issued = self.issued;
        self.streams.get_mut(stream)?.queue.push_back((issued, work));
        self.finish_stream(stream)
    }

    fn is_idle(&self, stream: u64) -> bool {
        self.streams.get(stream).is_ok_and(|stream| stream.queue.is_empty())
    }

    fn shorten(&mut self, stream: u64) -> Result<(), Code> {
        while self.streams.get(stream)?.queue.len() > MAX_QUEUE {
            self.step(stream)?;
        }
        Ok(())
    }

    /// Does a random number of steps of random streams.
    fn wander(&mut self) -> Result<(), Code> {
        for _ in 0..self.random.below(4) {
            let streams = self.streams.handles();
            let stream = streams[self.random.below(streams.len() as u64) as usize];
            self.step(stream)?;
        }
        Ok(())
    }

    /// Does a stream's next step, and before it what it waits for; whether there was one. A failure does not keep the step
    /// from being done, unless it made the context useless.
    pub fn step(&mut self, stream: u64) -> Result<bool, Code> {
        let Some((issued, work)) = self.streams.get_mut(stream)?.queue.pop_front() else {
            return Ok(false);
        };
        let mut before = self.respect_legacy(stream, issued);
        if let Work::Wait(event, number) = work {
            while let Ok(event) = self.events.get(event)
                && event.done < number
                && self.has_work(event.stream)
            {
                let recorder = event.stream;
                before = before.and(self.step(recorder).map(|_| ()));
            }
        }
        self.healthy()?;
        let own = self.perform(stream, &work).or_else(|code| self.failed(code));
        before.and(own).map(|()| true)
    }

    fn has_work(&self, stream: u64) -> bool {
        self.streams.get(stream).is_ok_and(|stream| !stream.queue.is_empty())
    }

    /// Work in the legacy stream waits for earlier work in all blocking streams of the context, and the other way
    /// round.
    fn respect_legacy(&mut self, stream: u64, issued: u64) -> Result<(), Code> {
        let this = self.streams.get(stream)?;
        let (context, non_blocking) = (this.context, this.non_blocking);
        let Ok(legacy) = self.contexts.get(context).map(|context| context.legacy) else {
            return Ok(());
        };
        if non_blocking && stream != legacy {
            return Ok(());
        }
        let others: Vec<u64> = if stream == legacy {
            let blocking = |other: &u64| {
                self.streams.get(*other).is_ok_and(|other| other.context == context && !other.non_blocking)
            };
            self.streams.handles().into_iter().filter(|other| *other != stream && blocking(other)).collect()
        } else {
            vec![legacy]
        };
        all(others.into_iter().map(|other| self.finish_until(other, issued)))
    }

    /// Does what was issued to a stream before a place in the order of issue. All of it is done whatever fails; the first
    /// failure is what comes back.
    pub fn finish_until(&mut self, stream: u64, issued: u64) -> Result<(), Code> {
        let mut result = Ok(());
        while let Ok(queued) = self.streams.get(stream)
            && queued.queue.front().is_some_and(|(earlier, _)| *earlier < issued)
        {
            result = result.and(self.step(stream).map(|_| ()));
        }
        result
    }

    /// Does everything in a stream.
    pub fn drain(&mut self, stream: u64) -> Result<(), Code> {
        self.streams.get(stream)?;
        self.finish_until(stream, u64::MAX)
    }

    /// Does everything in a context's streams.
    pub fn drain_context(&mut self, context: u64) -> Result<(), Code> {
        let streams = self.streams.handles().into_iter();
        let own = streams.filter(|stream| self.streams.get(*stream).is_ok_and(|stream| stream.context == context));
        let own: Vec<u64> = own.collect();
        all(own.into_iter().map(|stream| {
            let drained = self.drain(stream);
            self.all_ended(stream);
            drained
        }))
    }

    /// Does everything.
    pub fn drain_all(&mut self) -> Result<(), Code> {
        all(self.streams.handles().into_iter().map(|stream| self.drain(stream)))
    }

    /// Waits for a stream, as the program asked.
    pub fn synchronise_stream(&mut self, stream: u64) -> Result<(), Code> {
        self.healthy()?;
        self.refuse_in_capture(stream)?;
        self.refuse_unsafe()?;
        self.finish_stream(stream)
    }

    /// Waits for a stream that is not captured, because a call that waits has work in it.
    pub fn finish_stream(&mut self, stream: u64) -> Result<(), Code> {
        if self.is_legacy(stream) {
            // The legacy stream has not ended before the blocking streams' earlier work has.
            self.issued += 1;
            let issued = self.issued;
            let own = self.drain(stream);
            self.all_ended(stream);
            return own.and(self.respect_legacy(stream, issued));
        }
        let own = self.drain(stream);
        self.all_ended(stream);
        own
    }

    /// Waits for everything in the current context.
    pub fn synchronise_context(&mut self) -> Result<(), Code> {
        self.context()?;
        self.healthy()?;
        self.refuse_in_context(current())?;
        self.refuse_unsafe()?;
        self.drain_context(current())
    }

    /// Whether a stream has nothing left to do. Asking lets it get on by a step.
    pub fn query_stream(&mut self, stream: u64) -> Result<(), Code> {
        self.healthy()?;
        self.refuse_in_capture(stream)?;
        self.refuse_unsafe()?;
        if self.is_idle(stream) {
            return Ok(());
        }
        self.step(stream)?;
        Err(NOT_READY)
    }

    /// Adds an event.
    pub fn create_event(&mut self, flags: u32) -> u64 {
        let timed = flags & 2 == 0;
        self.events.add(Event { timed, recorded: 0, done: 0, stream: 0, time: None, captured: None })
    }

    /// Records an event in a stream.
    pub fn record_event(&mut self, event: u64, stream: u64) -> Result<(), Code> {
        self.healthy()?;
        self.events.get(event)?;
        if let Some(capture) = self.streams.get(stream)?.capture.clone() {
            self.events.get_mut(event)?.captured = Some(capture);
            return Ok(());
        }
        let object = self.events.get_mut(event)?;
        object.captured = None;
        object.recorded += 1;
        object.stream = stream;
        let number = object.recorded;
        self.submit(stream, Work::Record(event, number))
    }

    /// Makes a stream wait for an event.
    pub fn wait_event(&mut self, stream: u64, event: u64) -> Result<(), Code> {
        self.healthy()?;
        let object = self.events.get(event)?;
        let (recorded, captured) = (object.recorded, object.captured.clone());
        if self.join_capture(stream, captured, recorded)? {
            return Ok(());
        }
        if recorded == 0 {
            return Ok(());
        }
        self.submit(stream, Work::Wait(event, recorded))
    }

    /// Refuses events that a capture recorded last: they stand for nothing that runs.
    fn refuse_captured(&self, event: u64) -> Result<(), Code> {
        if self.events.get(event)?.captured.is_some() { Err(CAPTURED_EVENT) } else { Ok(()) }
    }

    /// Waits for an event's last recording.
    pub fn synchronise_event(&mut self, event: u64) -> Result<(), Code> {
        self.healthy()?;
        self.refuse_captured(event)?;
        self.refuse_unsafe()?;
        loop {
            let object = self.events.get(event)?;
            let stream = object.stream;
            if object.done >= object.recorded {
                self.all_ended(stream);
                return Ok(());
            }
            if !self.step(stream)? {
                return Ok(());
            }
        }
    }

    /// Whether an event's last recording is done. Asking lets its stream get on by a step.
    pub fn query_event(&mut self, event: u64) -> Result<(), Code> {
        self.healthy()?;
        self.refuse_captured(event)?;
        self.refuse_unsafe()?;
        let object = self.events.get(event)?;
        if object.done >= object.recorded {
            return Ok(());
        }
        let stream = object.stream;
        self.step(stream)?;
        Err(NOT_READY)
    }

    /// Milliseconds between two events.
    pub fn elapsed(&mut self, start: u64, end: u64) -> Result<f32, Code> {
        let (start, end) = (self.events.get(start)?, self.events.get(end)?);
        if !start.timed || !end.timed || start.recorded == 0 || end.recorded == 0 {
            return Err(INVALID_HANDLE);
        }
        if start.done < start.recorded || end.done < end.recorded {
            return Err(NOT_READY);
        }
        match (start.time, end.time) {
            (Some(from), Some(to)) if to >= from => Ok((to - from).as_secs_f32() * 1e3),
            (Some(from), Some(to)) => Ok(-((from - to).as_secs_f32() * 1e3)),
            _ => Err(INVALID_HANDLE),
        }
    }
}
