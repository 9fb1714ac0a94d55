//! How often work is run until its times can be trusted.

use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::measurement::Measurement;
use super::timing::Timing;
use crate::device::Gpu;
use crate::device::cuda::Stamps;
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

/// Whose clock is noted beside each run's time: that of a device's multiprocessors.
#[derive(Clone, Debug)]
pub struct Clocked {
    /// The device that works.
    pub gpu: Gpu,
    /// Whether runs are queued while those before still run, so that nothing may wait for the device in between.
    pub queued: bool,
}

impl Sampling {
    /// Runs work until its noise has settled. The measurement says so if that did not happen within the limit.
    pub fn measure(
        &self,
        name: &str,
        parameters: Map<String, Value>,
        clocked: Option<Clocked>,
        mut work: impl FnMut(&mut Laps) -> Result<()>,
    ) -> Result<Measurement> {
        let mut run = Runner::new(&mut work, clocked);
        run.warm(self.warmup)?;
        let (begun, mut looking) = (Instant::now(), Looking::new(self));
        let warnings = loop {
            run.once()?;
            if let Some(warnings) = looking.at(&run.seconds, begun.elapsed().as_secs_f64())? {
                break warnings;
            }
        };
        let clocks_mhz = run.clocks_mhz()?;
        let seconds = Timing::new(run.seconds)?;
        let parts = run.laps.parts.into_iter().map(|(name, parts)| Ok((name.to_string(), Timing::new(parts)?)));
        let parts = parts.collect::<Result<_>>()?;
        let seconds = Some(seconds);
        Ok(Measurement { seconds, clocks_mhz, parts, warnings, ..Measurement::new(name, parameters) })
    }
}

/// What was seen of the noise so far.
struct Looking<'a> {
    sampling: &'a Sampling,
    noises: Vec<f64>,
    /// Runs after which it is looked at again.
    next: usize,
}

impl Looking<'_> {
    fn new(sampling: &Sampling) -> Looking<'_> {
        Looking { sampling, noises: Vec::new(), next: sampling.least.max(2) }
    }

    /// After a run: whether it was the last, and then what there is to warn of. `seconds` are the times of all runs, `elapsed` is
    /// the time since the first began.
    fn at(&mut self, seconds: &[f64], elapsed: f64) -> Result<Option<Vec<String>>> {
        let runs = seconds.len();
        if let Some(wanted) = self.sampling.runs {
            return Ok((runs >= wanted).then(Vec::new));
        }
        if runs >= self.next && elapsed >= LEAST_SECONDS {
            self.next = runs + runs.div_ceil(10);
            let noise = Timing::new(seconds.to_vec())?.noise();
            self.noises.push(noise);
            if noise <= self.sampling.noise || settled(&self.noises) {
                return Ok(Some(Vec::new()));
            }
        }
        Ok((elapsed >= self.sampling.limit).then(|| vec![unmet(self.sampling, runs, &self.noises)]))
    }
}

/// Work and the times of its runs.
pub struct Runner<'a> {
    work: &'a mut dyn FnMut(&mut Laps) -> Result<()>,
    seconds: Vec<f64>,
    laps: Laps,
    clocked: Option<Clocked>,
    /// Before the first run that is timed, and behind each.
    stamps: Option<Stamps>,
}

impl<'a> Runner<'a> {
    /// Of work that did not run yet.
    pub fn new(work: &'a mut dyn FnMut(&mut Laps) -> Result<()>, clocked: Option<Clocked>) -> Runner<'a> {
        Runner { work, seconds: Vec::new(), laps: Laps::default(), clocked, stamps: None }
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
        if self.stamps.is_none() {
            self.stamp()?;
        }
        self.laps.last = Instant::now();
        let start = self.laps.last;
        (self.work)(&mut self.laps)?;
        let seconds = start.elapsed().as_secs_f64();
        self.seconds.push(seconds);
        self.stamp()?;
        Ok(seconds)
    }

    /// Has the device say its cycles and time. What is waited for is no part of the next run's time.
    fn stamp(&mut self) -> Result<()> {
        let Some(Clocked { gpu, queued }) = &self.clocked else { return Ok(()) };
        let stamps = match &mut self.stamps {
            Some(stamps) => stamps,
            none => none.insert(gpu.stamps()?),
        };
        stamps.push()?;
        if *queued { Ok(()) } else { gpu.synchronize() }
    }

    /// The clock of each run since it was last asked for, in MHz, where the device says it; nothing on the host.
    pub fn clocks_mhz(&mut self) -> Result<Option<Vec<Option<f64>>>> {
        match (self.stamps.take(), &self.clocked) {
            (Some(stamps), _) => stamps.clocks_mhz().map(Some),
            (None, clocked) => Ok(clocked.is_some().then(Vec::new)),
        }
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

    /// Runs until it ends, and warnings, of work that takes so many seconds: a clock that no other work disturbs.
    fn end(sampling: Sampling, seconds: impl Fn(usize) -> f64) -> (usize, Vec<String>) {
        let (mut looking, mut times, mut elapsed) = (Looking::new(&sampling), Vec::new(), 0.0);
        loop {
            times.push(seconds(times.len() + 1));
            elapsed += times.last().unwrap();
            if let Some(warnings) = looking.at(&times, elapsed).unwrap() {
                return (times.len(), warnings);
            }
        }
    }

    #[test]
    fn runs_go_on_until_the_noise_settles() {
        // Half a second at least, then at the first look.
        assert_eq!(end(Sampling::default(), |_| 0.01), (50, vec![]));
        assert_eq!(end(Sampling::default(), |_| 0.2), (10, vec![]));
        // Quartiles that stay 10 % apart: four looks say the same.
        let (runs, warnings) = end(Sampling::default(), |run| if run % 2 == 0 { 0.02 } else { 0.022 });
        assert!((26..60).contains(&runs) && warnings.is_empty(), "{runs} runs, {warnings:?}");
    }

    #[test]
    fn a_limit_that_ends_it_is_named_with_what_was_not_reached() {
        let (runs, few) = end(Sampling { limit: 0.1, ..Sampling::default() }, |_| 0.03);
        assert!(runs == 4 && few[0].contains("of at least 10 runs within 0.1 s"), "{runs}, {few:?}");
        // Ever slower, so that the quartiles go on parting.
        let sampling = Sampling { limit: 0.8, least: 3, ..Sampling::default() };
        let (_, drifting) = end(sampling, |run| 0.001 * 1.2f64.powi(run.min(30) as i32));
        assert!(drifting[0].contains("has neither settled nor come to 0.5 %"), "{drifting:?}");
    }

    #[test]
    fn a_set_number_of_runs_is_kept_with_the_times_of_their_parts() {
        let sampling = Sampling { warmup: Some(0), runs: Some(3), ..Sampling::default() };
        let work = |laps: &mut Laps| {
            laps.lap("part");
            Ok(())
        };
        let measured = sampling.measure("work", Map::new(), None, work).unwrap();
        assert_eq!((measured.seconds.unwrap().runs(), measured.parts["part"].runs()), (3, 3));
    }
}
