//! The spans of the last steps: what is older goes, and so does what would make the file too large.

use std::collections::{HashMap, VecDeque};

/// Where a span lies: a thread of the host, or a device's stream of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// A thread, by its number.
    Host(u32),
    /// A device, by its number among those of the trace.
    Device(u32),
}

/// A span that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Number of its name.
    pub name: u32,
    pub track: Track,
    /// Nanoseconds since the trace began.
    pub start: u64,
    /// Nanoseconds.
    pub duration: u64,
    /// The step in which it ended, from 0: what comes before the first.
    pub step: u32,
}

/// Most bytes that a span takes in the file, without its name.
const BYTES: usize = 140;

/// Bytes of the file beside the spans: names of threads and devices.
const AROUND: usize = 64 << 10;

pub struct Ring {
    events: VecDeque<Event>,
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    /// Bytes of the events in the file, at most.
    bytes: usize,
    most_bytes: usize,
    most_steps: u32,
    step: u32,
    left_out: u64,
}

impl Ring {
    /// For so many steps, and for a file of at most so many bytes.
    pub fn new(steps: usize, most_bytes: usize) -> Ring {
        Ring {
            events: VecDeque::new(),
            names: Vec::new(),
            numbers: HashMap::new(),
            bytes: AROUND,
            most_bytes,
            most_steps: u32::try_from(steps).unwrap_or(u32::MAX).max(1),
            step: 0,
            left_out: 0,
        }
    }

    /// The number of the current step.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// The name of this number.
    pub fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_string());
        self.numbers.insert(name.to_string(), number);
        number
    }

    fn size(&self, event: &Event) -> usize {
        BYTES + self.name(event.name).len()
    }

    /// The steps before this one go.
    fn first_kept(&self) -> u32 {
        (self.step + 1).saturating_sub(self.most_steps)
    }

    fn drop_oldest(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.bytes -= self.size(&event);
            self.left_out += 1;
        }
    }

    /// Begins a step.
    pub fn next_step(&mut self) {
        self.step = self.step.saturating_add(1);
        while self.events.front().is_some_and(|event| event.step < self.first_kept()) {
            self.drop_oldest();
        }
    }

    /// Adds a span that ended in this step, from one nanosecond to another.
    pub fn add(&mut self, name: &str, track: Track, (start, end): (u64, u64), step: u32) {
        let event = Event { name: self.number(name), track, start, duration: end.saturating_sub(start), step };
        self.bytes += self.size(&event);
        self.events.push_back(event);
        while self.bytes > self.most_bytes && !self.events.is_empty() {
            self.drop_oldest();
        }
    }

    /// The spans of the steps that are kept, by track and beginning; of those that begin together the longest first.
    pub fn kept(&self) -> Vec<Event> {
        let first = self.first_kept();
        let mut kept: Vec<Event> = self.events.iter().filter(|event| event.step >= first).copied().collect();
        kept.sort_by_key(|event| (event.track, event.start, std::cmp::Reverse(event.duration)));
        kept
    }

    /// How many steps are kept, what comes before the first not counted.
    pub fn steps(&self) -> usize {
        self.step.min(self.most_steps) as usize
    }

    /// How many spans are not kept.
    pub fn left_out(&self) -> u64 {
        let first = self.first_kept();
        self.left_out + self.events.iter().filter(|event| event.step < first).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::chrome;

    #[test]
    fn spans_of_the_last_steps_are_kept() {
        let mut ring = Ring::new(2, 1 << 20);
        for step in 0..5u64 {
            ring.next_step();
            ring.add("step", Track::Host(0), (10 * step, 10 * step + 9), ring.step());
        }
        // A device tells later of a step that is gone by then.
        ring.add("late", Track::Device(0), (0, 1), 1);
        let kept = ring.kept();
        assert_eq!(kept.iter().map(|event| (event.step, event.start)).collect::<Vec<_>>(), [(4, 30), (5, 40)]);
        assert_eq!((ring.steps(), ring.left_out()), (2, 4));
    }

    #[test]
    fn the_file_is_no_larger_than_it_may_be_and_holds_the_newest_spans() {
        let mut ring = Ring::new(usize::MAX, 200_000);
        let far = 9_999_999_999_999_999;
        for i in 0..5000 {
            ring.add("cross_attention backward", Track::Host(u32::MAX), (far + i, far + 2 * i), u32::MAX);
        }
        let events = ring.kept();
        let mut file = Vec::new();
        let about = chrome::About { tracks: &[], threads: &["main".into()], steps: 1, left_out: ring.left_out() };
        chrome::write(&mut file, &ring, &events, &about).unwrap();
        // Full, as far as the bounds on each span are tight.
        assert!(file.len() <= 200_000 && file.len() > 100_000, "{} bytes", file.len());
        assert_eq!(events.last().unwrap().start, far + 4999);
        assert_eq!(events.len() as u64 + ring.left_out(), 5000);
    }
}
