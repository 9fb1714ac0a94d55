//! How often work is run until its times can be trusted.

use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::measurement::Measurement;
use super::timing::Timing;
use crate::error::Result;

/// Runs and time below which no noise is judged.
const LEAST_SECONDS: f64 = 0.5;

/// Noise has settled when its last values, each of a tenth more runs than the one before, are within this share of their mean.
const SETTLED: f64 = 0.1;
const LOOKS: usize = 4;

/// Runs before the timed ones go on for this long at least, where their number is not set.
const WARM: Duration = Duration::from_millis(50);

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Runs that do not count; otherwise two and what fits into 50 ms.
    pub warmup: Option<usize>,
    /// Exactly so many runs; otherwise until the noise settles.
    pub runs: Option<usize>,
    /// The fewest runs where their number is not set.
    pub least: usize,
    /// Noise (distance of quartiles over median) that is low enough.
    pub noise: f64,
    /// Seconds after which it ends in any case.
    pub limit: f64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { warmup: None, runs: None, least: 10, noise: 0.005, limit: 15.0 }
    }
}

/// Times of the parts of one run.
#[derive(Debug)]
pub struct Laps {
    last: Instant,
    parts: IndexMap<&'static str, Vec<f64>>,
}

impl Default for Laps {
    fn default() -> Laps {
        Laps { last: Instant::now(), parts: IndexMap::new() }
    }
}

impl Laps {
    /// What was done since the run's start, or since the last lap, is no part.
    pub fn start(&mut self) {
        self.last = Instant::now();
    }

    /// What was done since the run's start, or since the last lap, is this part.
    pub fn lap(&mut self, part: &'static str) {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        self.part(part, seconds);
    }

    /// A part whose time something else measured, such as a device.
    pub fn part(&mut self, part: &'static str, seconds: f64) {
        self.parts.entry(part).or_default().push(seconds);
    }
}

impl Sampling {
    /// Runs work until its noise has settled. The measurement says so if that did not happen within the limit.
    pub fn measure(
        &self,
        name: &str,
        parameters: Map<String, Value>,
        mut work: impl FnMut(&mut Laps) -> Result<()>,
    ) -> Result<Measurement> {
        let mut run = Runner::new(&mut work);
        run.warm(self.warmup)?;
        let begun = Instant::now();
        let (mut noises, mut next) = (Vec::new(), self.least.max(2));
        let mut warnings = Vec::new();
        loop {
            run.once()?;
            let (runs, elapsed) = (run.seconds.len(), begun.elapsed().as_secs_f64());
            if let Some(wanted) = self.runs {
                if runs >= wanted {
                    break;
                }
                continue;
            }
            if runs >= next && elapsed >= LEAST_SECONDS {
                next = runs + runs.div_ceil(10);
                let noise = Timing::new(run.seconds.clone())?.noise();
                noises.push(noise);
                if noise <= self.noise || settled(&noises) {
                    break;
                }
            }
            if elapsed >= self.limit {
                warnings.push(unmet(self, runs, &noises));
                break;
            }
        }
        let seconds = Timing::new(run.seconds)?;
        let parts = run.laps.parts.into_iter().map(|(name, parts)| Ok((name.to_string(), Timing::new(parts)?)));
        let parts = parts.collect::<Result<_>>()?;
        Ok(Measurement { seconds: Some(seconds), parts, warnings, ..Measurement::new(name, parameters) })
    }
}

/// Work and the times of its runs.
pub struct Runner<'a> {
    work: &'a mut dyn FnMut(&mut Laps) -> Result<()>,
    seconds: Vec<f64>,
    laps: Laps,
}

impl<'a> Runner<'a> {
    /// Of work that did not run yet.
    pub fn new(work: &'a mut dyn FnMut(&mut Laps) -> Result<()>) -> Runner<'a> {
        Runner { work, seconds: Vec::new(), laps: Laps::default() }
    }

    /// Runs it without counting: so many times, or two and what fits into 50 ms.
    pub fn warm(&mut self, runs: Option<usize>) -> Result<()> {
        let begun = Instant::now();
        let enough = |done: usize| runs.map_or(done >= 2 && begun.elapsed() >= WARM, |runs| done >= runs);
        let mut done = 0;
        while !enough(done) {
            (self.work)(&mut Laps::default())?;
            done += 1;
        }
        Ok(())
    }

    /// Runs and times it once; gives the seconds.
    pub fn once(&mut self) -> Result<f64> {
        self.laps.last = Instant::now();
        let start = self.laps.last;
        (self.work)(&mut self.laps)?;
        let seconds = start.elapsed().as_secs_f64();
        self.seconds.push(seconds);
        Ok(seconds)
    }
}

/// Whether more runs would hardly tell anything else of the noise.
fn settled(noises: &[f64]) -> bool {
    let Some(last) = noises.len().checked_sub(LOOKS).map(|from| &noises[from..]) else { return false };
    let mean = last.iter().sum::<f64>() / LOOKS as f64;
    last.iter().all(|noise| (noise - mean).abs() <= SETTLED * mean)
}

fn unmet(sampling: &Sampling, runs: usize, noises: &[f64]) -> String {
    let Sampling { least, noise, limit, .. } = sampling;
    let advice = "--limit gives more time, --runs sets their number";
    match noises.last() {
        None if runs < *least => format!("{runs} of at least {least} runs within {limit} s: {advice}"),
        None => format!("{runs} runs in less than {LEAST_SECONDS} s: {advice}"),
        Some(last) => format!(
            "noise of {:.1} % has neither settled nor come to {:.1} % within {limit} s and {runs} runs: {advice}",
            100.0 * last,
            100.0 * noise
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(sampling: Sampling, seconds: impl Fn(usize) -> f64) -> Measurement {
        let mut run = 0;
        let wait = |laps: &mut Laps| {
            run += 1;
            std::thread::sleep(Duration::from_secs_f64(seconds(run)));
            laps.lap("sleep");
            Ok(())
        };
        sampling.measure("work", Map::new(), wait).unwrap()
    }

    #[test]
    fn runs_go_on_until_the_noise_settles() {
        let measured = measure(Sampling::default(), |_| 0.01);
        let runs = measured.seconds.as_ref().unwrap().runs();
        assert!((10..200).contains(&runs) && measured.warnings.is_empty(), "{measured:?}");
        assert_eq!(measured.parts["sleep"].runs(), runs);
    }

    #[test]
    fn a_limit_that_ends_it_is_named_with_what_was_not_reached() {
        let sampling = Sampling { limit: 0.1, ..Sampling::default() };
        let few = measure(sampling, |_| 0.03);
        assert!(few.warnings[0].contains("of at least 10 runs within 0.1 s"), "{few:?}");
        // Ever slower, so that the quartiles go on parting.
        let sampling = Sampling { limit: 0.8, least: 3, ..Sampling::default() };
        let drifting = measure(sampling, |run| 0.001 * 1.2f64.powi(run.min(30) as i32));
        assert!(drifting.warnings[0].contains("has neither settled nor come to 0.5 %"), "{drifting:?}");
    }

    #[test]
    fn a_set_number_of_runs_is_kept() {
        let sampling = Sampling { warmup: Some(0), runs: Some(3), ..Sampling::default() };
        assert_eq!(measure(sampling, |_| 0.0).seconds.unwrap().runs(), 3);
    }
}
