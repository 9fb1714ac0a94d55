//! How the rows of a command are measured: by themselves, or turn by turn as another process asks.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use fissfuse::device::{Ceilings, Gpu};
use fissfuse::interrupt::{self, Watch};
use fissfuse::profile::Timing;
use fissfuse::profile::comparison::{Turn, expect_same_place, expect_same_settings};
use fissfuse::profile::machine::ceilings;
use fissfuse::profile::measurement::{Measurement, Measurements};
use fissfuse::profile::sampling::{Clocked, Laps, Runner, Sampling};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::at_least_one;

/// How long each row is measured.
#[derive(Args, Clone, Debug)]
pub struct SamplingArgs {
    /// Timed runs of each row [default: until the noise has settled].
    #[arg(long, global = true, value_name = "N", value_parser = at_least_one(), help_heading = "Sampling")]
    pub runs: Option<usize>,

    /// Runs before those that are timed [default: two and what fits into 50 ms].
    #[arg(long, global = true, value_name = "N", help_heading = "Sampling")]
    pub warmup: Option<usize>,

    /// Noise (distance of quartiles over median) that is low enough, in per cent.
    #[arg(long, global = true, value_name = "PERCENT", default_value_t = 0.5, value_parser = percent, help_heading = "Sampling")]
    pub noise: f64,

    /// Seconds after which a row ends with a warning if its noise has not settled.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 15.0, value_parser = seconds, help_heading = "Sampling")]
    pub limit: f64,

    /// Measure in the same run what the machine does at most: FLOPs of products, and bytes moved.
    #[arg(long, global = true, help_heading = "Sampling")]
    pub ceilings: bool,

    /// Slow each run down by this share of its time, to see whether a comparison finds it.
    #[arg(long, global = true, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent, hide = true)]
    pub plant: f64,

    /// Measure when asked on standard input, and answer on standard output: for --interleave.
    #[arg(long, global = true, hide = true)]
    pub in_turns: bool,
}

impl SamplingArgs {
    fn sampling(&self, least: usize) -> Sampling {
        let SamplingArgs { runs, warmup, noise, limit, .. } = *self;
        Sampling { warmup, runs, least, noise: noise / 100.0, limit }
    }
}

/// Parses shares in per cent.
pub fn percent(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1e6).contains(&value)).ok_or("a number from 0 to 1000000".into())
}

/// Parses times in seconds.
fn seconds(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0 && value <= 1e9).ok_or("a number above 0, up to 1000000000".into())
}

fn number(text: &str, fits: impl Fn(f64) -> bool) -> Option<f64> {
    text.parse().ok().filter(|value| fits(*value))
}

/// A command at work: measures its rows and keeps what it found.
pub struct Session {
    args: SamplingArgs,
    found: Option<Measurements>,
    /// The device that works, whose clock is noted of each run.
    clocked: Option<Clocked>,
    /// What it will be compared with.
    earlier: Option<Measurements>,
    /// Held from the first row on, so that a signal leaves the rows that are done.
    watch: Option<Watch>,
}

/// What a process that measures in turns says: a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// A row is warm; its name and parameters.
    Ready(String, Map<String, Value>),
    /// The seconds that the runs took that were asked for, on the host.
    Seconds(Vec<f64>),
    /// The same on a device, with its clock.
    Turn(Turn),
}

/// What it is asked for: a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// Runs for at least so many seconds, and once at least.
    Run(f64),
    /// The next row.
    Next,
}

impl Session {
    /// Nothing measured yet; what is measured will be compared with an earlier run, if there is one.
    pub fn new(args: SamplingArgs, earlier: Option<Measurements>) -> Session {
        Session { args, found: None, clocked: None, earlier, watch: None }
    }

    /// A command begins, on this device.
    pub fn begin(&mut self, command: &str, gpu: Option<&Gpu>) -> anyhow::Result<()> {
        self.clocked = gpu.map(|gpu| Clocked { gpu: gpu.clone(), queued: false });
        let found = self.found.insert(Measurements::begin(command, gpu)?);
        self.earlier.as_ref().map_or(Ok(()), |earlier| expect_same_place(earlier, found))?;
        if self.args.ceilings && !self.args.in_turns {
            found.ceilings = Some(ceilings(gpu)?);
        }
        Ok(())
    }

    /// Runs are queued while those before still run.
    pub fn queues(&mut self) {
        self.clocked.iter_mut().for_each(|clocked| clocked.queued = true);
    }

    /// What holds for all rows.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(found) = &mut self.found {
            found.settings.insert(name.into(), value.into());
        }
    }

    /// Refuses what the earlier run cannot be compared with, once all settings are known and before anything is measured.
    pub fn expect_comparable(&self) -> anyhow::Result<()> {
        let both = self.earlier.as_ref().zip(self.found.as_ref());
        Ok(both.map_or(Ok(()), |(earlier, found)| expect_same_settings(earlier, found))?)
    }

    /// A row begins that is measured elsewhere. Fails if a signal asked to stop, or as [`Session::expect_comparable`].
    pub fn next_row(&mut self) -> anyhow::Result<()> {
        self.expect_comparable()?;
        if self.watch.is_none() && !self.args.in_turns {
            self.watch = Some(interrupt::watch()?);
        }
        Ok(go_on()?)
    }

    /// What the machine does at most was measured as well.
    pub fn reach(&mut self, ceilings: Ceilings) {
        self.found.iter_mut().for_each(|found| found.ceilings = Some(ceilings));
    }

    /// What the machine does at most, if that was measured.
    pub fn ceilings(&self) -> Option<Ceilings> {
        self.found.as_ref()?.ceilings
    }

    /// Fails if runs were asked for of a command that cannot repeat its rows, because of `why`.
    pub fn expect_no_runs(&self, why: &str) -> anyhow::Result<()> {
        ensure!(self.args.runs.is_none() && self.args.warmup.is_none(), "{why}: leave out --runs and --warmup");
        Ok(())
    }

    /// Timed runs, where their number is set.
    pub fn runs(&self) -> Option<usize> {
        self.args.runs
    }

    /// Whether runs before those that count were asked for.
    pub fn warms_up(&self) -> bool {
        self.args.warmup.is_some_and(|runs| runs > 0)
    }

    /// Whether the first run counts.
    pub fn is_cold(&self) -> bool {
        self.args.warmup == Some(0) && !self.args.in_turns
    }

    /// Whether more may be done than the runs that are asked for: not where the first run is to be all that the device does, or
    /// another process asks for turns.
    pub fn is_observed(&self) -> bool {
        !self.args.in_turns && !self.is_cold()
    }

    /// Measures a row, of at least ten runs where their number is not set.
    pub fn measure(
        &mut self,
        name: &str,
        parameters: Map<String, Value>,
        work: impl FnMut(&mut Laps) -> fissfuse::Result<()>,
    ) -> anyhow::Result<Measurement> {
        self.measure_at_least(10, name, parameters, work)
    }

    /// Measures a row of at least so many runs where their number is not set.
    pub fn measure_at_least(
        &mut self,
        least: usize,
        name: &str,
        parameters: Map<String, Value>,
        mut work: impl FnMut(&mut Laps) -> fissfuse::Result<()>,
    ) -> anyhow::Result<Measurement> {
        self.next_row()?;
        let share = self.args.plant / 100.0;
        let mut slowed = |laps: &mut Laps| {
            go_on()?;
            let start = Instant::now();
            work(laps)?;
            wait(start.elapsed().mul_f64(share));
            Ok(())
        };
        let clocked = self.clocked.clone().filter(|_| !self.is_cold());
        match self.args.in_turns {
            true => in_turns(name, parameters, clocked, &mut slowed),
            false => Ok(self.args.sampling(least).measure(name, parameters, clocked, slowed)?),
        }
    }

    /// A row is done. It stays if a later one fails.
    pub fn push(&mut self, row: Measurement) {
        if let Some(found) = &mut self.found {
            found.results.push(row);
        }
    }

    /// Advice that follows from the rows.
    pub fn advise(&mut self, advice: Vec<String>) {
        if let Some(found) = &mut self.found {
            found.advice.extend(advice);
        }
    }

    /// Everything that was found, unless another process asked for it turn by turn, and what it is to be compared with.
    pub fn end(self) -> (Option<Measurements>, Option<Measurements>) {
        (self.found.filter(|_| !self.args.in_turns), self.earlier)
    }
}

/// Fails if a signal asked to stop.
pub fn go_on() -> fissfuse::Result<()> {
    interrupt::check(|| "the rows that were done are printed, and saved if --save is given".into())
}

/// Passes the time as work does: sleeping would let the processor slow down.
fn wait(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Says that a row is ready and runs it as often as standard input asks.
fn in_turns(
    name: &str,
    parameters: Map<String, Value>,
    clocked: Option<Clocked>,
    work: &mut dyn FnMut(&mut Laps) -> fissfuse::Result<()>,
) -> anyhow::Result<Measurement> {
    let mut runner = Runner::new(work, clocked);
    runner.warm(None)?;
    say(&Said::Ready(name.into(), parameters.clone()))?;
    let mut all = Vec::new();
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?).context("standard input asks for no turn")? {
            Asked::Next => {
                return Ok(Measurement { seconds: Timing::new(all).ok(), ..Measurement::new(name, parameters) });
            }
            Asked::Run(seconds) => {
                let mut turn = Vec::new();
                while turn.iter().sum::<f64>() < seconds || turn.is_empty() {
                    turn.push(runner.once()?);
                }
                all.extend(&turn);
                say(&match runner.clocks_mhz()? {
                    None => Said::Seconds(turn),
                    clocks_mhz => Said::Turn(Turn { seconds: turn, clocks_mhz }),
                })?;
            }
        }
    }
    bail!("standard input ended while turns were measured")
}

fn say(said: &Said) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(said)?)?;
    Ok(out.flush()?)
}
