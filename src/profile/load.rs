//! Open-loop load: work arrives by a schedule that does not wait for what came before.
//!
//! The time of each request counts from when it was scheduled, so that waiting behind slow ones is seen (no coordinated
//! omission).

use std::str::FromStr;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::{Map, Value};

use super::advice::{ARRIVALS, SERVICE, THROUGHPUT};
use super::measurement::Measurement;
use super::sampling::Laps;
use super::timing::Timing;
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};

/// The most requests of a schedule.
const MOST: f64 = 1e6;

/// The longest schedule, in seconds: a day.
const LONGEST: f64 = 86_400.0;

/// Waiting for the next arrival sleeps up to this far before it, and spins from there on.
const SPIN: Duration = Duration::from_micros(200);

/// When requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// At exponentially distributed distances, as of many users who know nothing of each other.
    Poisson,
    /// At equal distances.
    Constant,
}

impl FromStr for Arrival {
    type Err = String;

    fn from_str(name: &str) -> Result<Arrival, String> {
        match name {
            "poisson" => Ok(Arrival::Poisson),
            "constant" => Ok(Arrival::Constant),
            _ => Err("poisson or constant".into()),
        }
    }
}

impl Arrival {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Arrival::Poisson => "poisson",
            Arrival::Constant => "constant",
        }
    }
}

/// A load to put on some work.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests per second.
    pub rate: f64,
    /// How they arrive.
    pub arrival: Arrival,
    /// For how many seconds.
    pub seconds: f64,
    /// Seconds within which a request is good, if that is asked.
    pub objective: Option<f64>,
    /// Draws the schedule.
    pub seed: u64,
}

impl Load {
    /// Seconds of each arrival, ascending from 0. Fails if there are none, or too many to keep.
    pub fn schedule(&self) -> Result<Vec<f64>> {
        let expected = self.rate * self.seconds;
        let objective = self.objective.is_none_or(|seconds| seconds > 0.0 && seconds.is_finite());
        if !(1.0..=MOST).contains(&expected) || self.seconds > LONGEST || !objective {
            return Err(Error::invalid(format!(
                "a load of {} requests/s for {} s: needs 1 to {MOST} requests in {LONGEST} s at most, and a positive objective",
                self.rate, self.seconds
            )));
        }
        let mut rng = generator(self.seed, Purpose::Benchmark, 7);
        let mut at = 0.0;
        let mut next = || {
            let distance = match self.arrival {
                Arrival::Constant => 1.0,
                Arrival::Poisson => -(1.0 - rng.random::<f64>()).ln(),
            };
            let this = at;
            at += distance / self.rate;
            this
        };
        Ok(std::iter::repeat_with(&mut next).take_while(|at| *at < self.seconds).collect())
    }

    /// Does the work as scheduled, one request after the other; parts `queue` and `service` of each.
    pub fn run(
        &self,
        name: &str,
        parameters: Map<String, Value>,
        mut work: impl FnMut(&mut Laps) -> Result<()>,
    ) -> Result<Measurement> {
        let schedule = self.schedule()?;
        let (mut whole, mut queue, mut service) = (Vec::new(), Vec::new(), Vec::new());
        // What the first runs allocate is no part of the load.
        for _ in 0..3 {
            work(&mut Laps::default())?;
        }
        let start = Instant::now();
        for &at in &schedule {
            let due = start + Duration::from_secs_f64(at);
            wait_until(due);
            let begun = Instant::now();
            work(&mut Laps::default())?;
            let done = Instant::now();
            whole.push((done - due).as_secs_f64());
            queue.push((begun - due).as_secs_f64());
            service.push((done - begun).as_secs_f64());
        }
        let seconds = start.elapsed().as_secs_f64();
        let good = self.objective.map(|objective| whole.iter().filter(|time| **time <= objective).count());
        let mut row = Measurement::new(name, parameters);
        row.seconds = Some(Timing::new(whole)?);
        row.parts.insert("queue".into(), Timing::new(queue)?);
        row.parts.insert(SERVICE.into(), Timing::new(service)?);
        let row = row.with("requests", schedule.len() as f64);
        let row = row.with(ARRIVALS, schedule.len() as f64 / self.seconds);
        let row = row.with(THROUGHPUT, schedule.len() as f64 / seconds);
        Ok(match good {
            Some(good) => row
                .with("goodput_per_second", good as f64 / seconds)
                .with("good_share", good as f64 / schedule.len() as f64),
            None => row,
        })
    }
}

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > SPIN {
        std::thread::sleep(left - SPIN);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { rate: 100.0, arrival: Arrival::Constant, seconds: 0.2, objective: None, seed: 0 };

    #[test]
    fn schedules_follow_from_their_seed() {
        assert_eq!(LOAD.schedule().unwrap().len(), 20);
        let poisson = Load { rate: 1000.0, arrival: Arrival::Poisson, seconds: 10.0, ..LOAD };
        let schedule = poisson.schedule().unwrap();
        // The number has a standard deviation of 100; six of them.
        assert!((9_400..10_600).contains(&schedule.len()) && schedule.is_sorted());
        assert_eq!(schedule, poisson.schedule().unwrap());
        let endless = Load { rate: 1e-20, seconds: 1e21, ..LOAD };
        let objectives = [-1.0, f64::NAN, f64::INFINITY].map(|seconds| Load { objective: Some(seconds), ..LOAD });
        let rates = [0.0, 1e9, -1.0, f64::NAN].map(|rate| Load { rate, ..LOAD });
        for wrong in [endless].into_iter().chain(objectives).chain(rates) {
            assert!(wrong.schedule().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn waiting_counts_from_the_scheduled_start() {
        // Each takes twice the time between two arrivals: the last of twenty waits for about ten times the work of one.
        let load = Load { objective: Some(0.05), ..LOAD };
        let work = |_: &mut Laps| {
            std::thread::sleep(Duration::from_millis(20));
            Ok(())
        };
        let row = load.run("load", Map::new(), work).unwrap();
        let (whole, service) = (row.seconds.as_ref().unwrap(), &row.parts["service"]);
        assert!(whole.samples()[19] >= 0.2 && whole.samples()[19] > 5.0 * service.samples()[19], "{row:?}");
        let [goodput, throughput] =
            ["goodput_per_second", "throughput_per_second"].map(|name| row.figures[name].unwrap());
        assert!(goodput < throughput && throughput <= 50.0, "{row:?}");
    }
}
