//! The time of work where it is done: the host's clock, or a device's, which is asked without waiting for the device.

use std::time::Instant;

use super::Gpu;
use super::cuda::Mark;
use crate::error::{Error, Result};

/// Whose time counts.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The host's.
    Host,
    /// That of a device.
    Device(Gpu),
}

/// A moment of a [`Clock`]; of a device's, the moment at which what was queued before is done.
#[derive(Debug)]
pub enum Moment {
    /// Of the host.
    Host(Instant),
    /// Of a device.
    Device(Mark),
}

impl Clock {
    /// The clock of what computes; `None` is the host.
    pub fn of(gpu: Option<&Gpu>) -> Clock {
        gpu.cloned().map_or(Clock::Host, Clock::Device)
    }

    /// This moment. Fails while this thread records a graph, which has no moments.
    pub fn now(&self) -> Result<Moment> {
        match self {
            Clock::Host => Ok(Moment::Host(Instant::now())),
            Clock::Device(gpu) => match gpu.mark()? {
                Some(mark) => Ok(Moment::Device(mark)),
                None => {
                    Err(Error::device(format!("{gpu:?}"), "taking times", "a graph is being recorded, which has none"))
                }
            },
        }
    }
}

impl Moment {
    /// Seconds since an earlier moment of the same clock; waits for a device to come to both.
    pub fn since(&self, earlier: &Moment) -> Result<f64> {
        match (self, earlier) {
            (Moment::Host(end), Moment::Host(start)) => Ok(end.saturating_duration_since(*start).as_secs_f64()),
            (Moment::Device(end), Moment::Device(start)) => end.since(start),
            _ => Err(Error::invalid("the moments of two clocks have no distance")),
        }
    }
}
