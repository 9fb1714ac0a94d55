//! What a tape notes of the operations that it runs: their cost, and their time forward and backward.

use std::cell::RefCell;
use std::rc::Rc;

use super::Cost;
use crate::device::{Clock, Moment};
use crate::error::Result;

/// An operation of a run.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its name.
    pub op: &'static str,
    /// Arithmetic and memory traffic of each instance, as far as is known: that a gradient comes to all of them until backward
    /// has run, and then what ran.
    pub costs: Vec<Cost>,
    /// Number and size of each leaf among its inputs, such as a weight; of a recording tape.
    pub leaves: Vec<(usize, usize)>,
}

impl Sample {
    /// Of all instances together.
    pub fn cost(&self) -> Cost {
        self.costs.iter().copied().sum()
    }

    /// The same without the backwards of instances that no gradient comes to; `None` is none of all.
    pub(crate) fn as_reached(&self, reached: Option<&[bool]>) -> Sample {
        let ran = |i: usize| reached.is_some_and(|reached| reached[i]);
        let costs = self.costs.iter().enumerate().map(|(i, cost)| if ran(i) { *cost } else { cost.forward_alone() });
        Sample { costs: costs.collect(), ..self.clone() }
    }
}

/// An operation of a run with its time.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Which it is, and what of its cost ran.
    pub sample: Sample,
    /// Seconds of forward.
    pub forward: f64,
    /// Seconds of backward; `None` if it did not run, since no gradient flows to the operation.
    pub backward: Option<f64>,
}

/// Notes of a tape's operations, in their order; cloning shares them, so that they outlive the tape. On a device an
/// operation takes from a mark in the stream before its kernels to one behind them, and nothing waits for it: what the
/// device idles there while the host queues counts as the operation's.
#[derive(Clone, Debug)]
pub struct Profile {
    clock: Clock,
    notes: Rc<RefCell<Vec<Note>>>,
}

#[derive(Debug)]
struct Note {
    sample: Sample,
    forward: [Moment; 2],
    backward: Option<([Moment; 2], Vec<bool>)>,
}

impl Profile {
    /// Without notes yet, by the clock of what computes.
    pub fn new(clock: Clock) -> Profile {
        Profile { clock, notes: Rc::default() }
    }

    /// This moment.
    pub(super) fn now(&self) -> Result<Moment> {
        self.clock.now()
    }

    /// Notes an operation whose forward has just ended; gives its number.
    pub(super) fn ran(&self, start: Moment, sample: impl FnOnce() -> Sample) -> Result<usize> {
        // Taken first: the cost is computed after it.
        let forward = [start, self.now()?];
        let mut notes = self.notes.borrow_mut();
        notes.push(Note { sample: sample(), forward, backward: None });
        Ok(notes.len() - 1)
    }

    /// Adds to the cost of an instance of an operation, by the operation's number.
    pub(super) fn spends(&self, (number, instance): (usize, usize), cost: Cost) {
        self.notes.borrow_mut()[number].sample.costs[instance] += cost;
    }

    /// Notes that the backward of an operation has just ended, of those instances that a gradient came to.
    pub(super) fn ran_back(&self, number: usize, start: Moment, reached: Vec<bool>) -> Result<()> {
        let backward = [start, self.now()?];
        self.notes.borrow_mut()[number].backward = Some((backward, reached));
        Ok(())
    }

    /// The operations so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.notes.borrow().iter().map(|note| note.sample.clone()).collect()
    }

    /// Of each operation whether a gradient came to each of its instances.
    pub fn reached(&self) -> Vec<Vec<bool>> {
        let of = |note: &Note| match &note.backward {
            Some((_, reached)) => reached.clone(),
            None => vec![false; note.sample.costs.len()],
        };
        self.notes.borrow().iter().map(of).collect()
    }

    /// The same with their times; waits for a device. Fails if what it computed failed.
    pub fn timed(&self) -> Result<Vec<Timed>> {
        let took = |[start, end]: &[Moment; 2]| end.since(start);
        let timed = |note: &Note| {
            let (times, reached) = note.backward.as_ref().map(|(times, reached)| (times, &reached[..])).unzip();
            let (forward, backward) = (took(&note.forward)?, times.map(took).transpose()?);
            Ok(Timed { sample: note.sample.as_reached(reached), forward, backward })
        };
        self.notes.borrow().iter().map(timed).collect()
    }
}
