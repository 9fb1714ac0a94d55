//! Whether work became slower: verdicts on two runs of a benchmark.
//!
//! Two files are compared by nvbench's rule: the intervals from the fastest run to the third quartile must be apart by a clear
//! gap. Files are of different minutes, so only a large difference can be told. Two programs that run in turn are compared by
//! the ratios of their rounds, each of new processes, since two processes of one program differ by a per cent for as long as
//! they live. On a device, either must hold in cycles as well, or the clock differs and not the work.

mod rounds;
mod thresholds;

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use rounds::{Rounds, Turn};
pub use thresholds::Thresholds;

use super::measurement::{Measurement, Measurements};
use super::timing::Timing;
use crate::error::{Error, Result};

/// What is said of two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// No difference that matters.
    Same,
    /// The new one is faster.
    Fast,
    /// The new one is slower.
    Slow,
    /// Too few runs, too much noise, or a difference that is not clear: no verdict, and never a pass.
    Ambiguous,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.pad(match self {
            Verdict::Same => "SAME",
            Verdict::Fast => "FAST",
            Verdict::Slow => "SLOW",
            Verdict::Ambiguous => "AMBIGUOUS",
        })
    }
}

/// A row of both runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// What was done.
    pub name: String,
    /// Its sizes and ways.
    pub parameters: Map<String, Value>,
    /// Median seconds of the old and of the new.
    pub old: f64,
    pub new: f64,
    /// New over old: of files of the medians, of programs in turn the centre of the rounds' ratios.
    pub ratio: f64,
    /// The interval of that, of programs in turn.
    pub interval: Option<(f64, f64)>,
    /// What follows.
    pub verdict: Verdict,
    /// Why, in words.
    pub why: String,
}

fn differ(what: impl AsRef<str>) -> Error {
    Error::invalid(format!("these runs cannot be compared: {}", what.as_ref()))
}

/// Fails if a run is none that another can be compared with: it has no times, or a row twice.
pub fn expect_rows_once(run: &Measurements) -> Result<()> {
    let mut seen = HashSet::new();
    let twice = timed(run).into_iter().find(|row| !seen.insert(row.clone()));
    match twice {
        Some(row) => Err(differ(format!("`{row}` is a row twice"))),
        None if seen.is_empty() => Err(differ("one has no times")),
        None => Ok(()),
    }
}

/// Fails if the runs are of other commands or machines.
pub fn expect_same_place(old: &Measurements, new: &Measurements) -> Result<()> {
    if old.command != new.command {
        return Err(differ(format!("{} was measured then, {} now", old.command, new.command)));
    }
    new.machine.differs(&old.machine).map_or(Ok(()), |machine| Err(differ(machine)))
}

/// Fails if the runs' settings differ.
pub fn expect_same_settings(old: &Measurements, new: &Measurements) -> Result<()> {
    for key in old.settings.keys().chain(new.settings.keys()) {
        let [then, now] = [old, new].map(|run| run.settings.get(key).map_or("not set".into(), Value::to_string));
        if then != now {
            return Err(differ(format!("{key} was {then} then and is {now} now")));
        }
    }
    Ok(())
}

/// Names and parameters of the rows that have times.
fn timed(run: &Measurements) -> Vec<String> {
    run.results.iter().filter(|row| row.seconds.is_some()).map(Measurement::label).collect()
}

/// Compares two files row by row. Fails if their data, settings or machines differ, or a row is in one alone or twice.
pub fn compare(old: &Measurements, new: &Measurements, thresholds: &Thresholds) -> Result<Vec<Compared>> {
    expect_same_place(old, new)?;
    expect_same_settings(old, new)?;
    let (then, now): (Vec<String>, Vec<String>) = (timed(old), timed(new));
    let [only_then, only_now] = [(&then, &now), (&now, &then)].map(|(a, b)| a.iter().find(|row| !b.contains(row)));
    if let Some(row) = only_then {
        return Err(differ(format!("`{row}` was measured then only")));
    }
    if let Some(row) = only_now {
        return Err(differ(format!("`{row}` is measured now only")));
    }
    [old, new].into_iter().try_for_each(expect_rows_once)?;
    let on_device = new.machine.gpu.is_some();
    let of_row = |row: &Measurement| {
        let before = old.find(&row.name, &row.parameters)?;
        let (then, now) = (before.seconds.as_ref()?, row.seconds.as_ref()?);
        let (mut verdict, mut why) = of_files(then, now, thresholds);
        if on_device && matches!(verdict, Verdict::Slow | Verdict::Fast) {
            let (in_cycles, reason) = confirmed(before, row, verdict, thresholds.clear_gap);
            (verdict, why) = (in_cycles, format!("{why}{reason}"));
        }
        let (name, parameters) = (row.name.clone(), row.parameters.clone());
        let [old, new] = [then.p50(), now.p50()];
        Some(Compared { name, parameters, old, new, ratio: new / old, interval: None, verdict, why })
    };
    Ok(new.results.iter().filter_map(of_row).collect())
}

/// A verdict in time where the rows are compared in cycles, too: a card that ran at another clock is no slower program. With
/// what is to be added to why.
fn confirmed(old: &Measurement, new: &Measurement, verdict: Verdict, clear_gap: f64) -> (Verdict, String) {
    let Some((then, now)) = old.cycles().zip(new.cycles()) else {
        return (Verdict::Ambiguous, UNKNOWN.into());
    };
    match apart(&then, &now, clear_gap) {
        Some((in_cycles, gap)) if in_cycles == verdict => (verdict, format!(", and {} in cycles", percent(gap))),
        _ => {
            let [then, now] = [(old, then), (new, now)].map(|(row, cycles)| {
                let seconds = row.seconds.as_ref().map_or(f64::NAN, Timing::p50);
                format!("{:.0} MHz", 1e-6 * cycles.p50() / seconds)
            });
            (Verdict::Ambiguous, format!("; cycles do not confirm it: the clock was {then} and is {now}"))
        }
    }
}

/// Whether one side's fastest run is beyond three quarters of the other's, and by which share.
fn apart(old: &Timing, new: &Timing, clear_gap: f64) -> Option<(Verdict, f64)> {
    let beyond = |side: &Timing, other: &Timing| side.min() / other.quantile(0.75) - 1.0;
    let both = [(Verdict::Slow, beyond(new, old)), (Verdict::Fast, beyond(old, new))];
    both.into_iter().find(|(_, gap)| *gap >= clear_gap)
}

/// Why cycles confirm nothing where there are none.
const UNKNOWN: &str = "; not confirmed in cycles, since the clock is not known of each run";

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn of_files(old: &Timing, new: &Timing, thresholds: &Thresholds) -> (Verdict, String) {
    let Thresholds { min_runs, max_noise, clear_gap, .. } = thresholds;
    for (which, timing) in [("old", old), ("new", new)] {
        if timing.runs() < *min_runs {
            return (Verdict::Ambiguous, format!("{} {which} runs, at least {min_runs} are needed", timing.runs()));
        }
        if timing.noise() > *max_noise {
            let noise = percent(timing.noise());
            return (
                Verdict::Ambiguous,
                format!("noise of the {which} runs is {noise}, {} at most", percent(*max_noise)),
            );
        }
    }
    let within = |timing: &Timing, other: &Timing| (other.min()..=other.quantile(0.75)).contains(&timing.p50());
    match apart(old, new, *clear_gap) {
        Some((Verdict::Slow, gap)) => {
            (Verdict::Slow, format!("its fastest run is {} beyond three quarters of the old", percent(gap)))
        }
        Some((verdict, gap)) => {
            (verdict, format!("three quarters of its runs are {} below the fastest old one", percent(gap)))
        }
        None if within(new, old) && within(old, new) => {
            (Verdict::Same, "each median is among the other's runs from the fastest to the third quartile".into())
        }
        None => (Verdict::Ambiguous, "the runs overlap, but not by their medians".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::machine::GpuMachine;

    /// Twenty runs around a time, within 2 %.
    fn around(seconds: f64) -> Timing {
        Timing::new((0..20).map(|i| seconds * (1.0 + 0.001 * i as f64)).collect()).unwrap()
    }

    fn run(timing: Timing) -> Measurements {
        let mut run = Measurements::begin("step", None).unwrap();
        run.results = vec![Measurement { seconds: Some(timing), ..Measurement::new("step", Map::new()) }];
        run
    }

    #[test]
    fn files_are_apart_overlap_or_say_too_little() {
        let of = |old: Timing, new: Timing| compare(&run(old), &run(new), &Thresholds::default()).unwrap()[0].verdict;
        assert_eq!(of(around(1.0), around(1.0)), Verdict::Same);
        assert_eq!(of(around(1.0), around(1.03)), Verdict::Slow);
        assert_eq!(of(around(1.03), around(1.0)), Verdict::Fast);
        assert_eq!(of(around(1.0), around(1.012)), Verdict::Ambiguous);
        assert_eq!(of(around(1.0), Timing::new(vec![2.0; 9]).unwrap()), Verdict::Ambiguous, "too few");
        let noisy = Timing::new((0..20).map(|i| 1.0 + 0.05 * i as f64).collect()).unwrap();
        assert_eq!(of(noisy, around(3.0)), Verdict::Ambiguous, "too noisy");
    }

    /// A run on a device, at a clock that rises by so much from run to run.
    fn on_device(timing: Timing, clock_mhz: impl Fn(usize) -> Option<f64>) -> Measurements {
        let clocks = (0..timing.runs()).map(clock_mhz).collect();
        let mut run = run(timing);
        run.machine.gpu = Some(GpuMachine::default());
        run.results[0].clocks_mhz = Some(clocks);
        run
    }

    #[test]
    fn on_a_device_cycles_confirm_what_time_says() {
        let of =
            |old: &Measurements, new: &Measurements| compare(old, new, &Thresholds::default()).unwrap().swap_remove(0);
        let steady = |_| Some(1755.0);
        let (fast, slow) = (on_device(around(1.0), steady), on_device(around(1.1), steady));
        let found = of(&fast, &slow);
        assert!(found.verdict == Verdict::Slow && found.why.contains("in cycles"), "{found:?}");
        assert_eq!(of(&slow, &fast).verdict, Verdict::Fast);
        // The card ran a tenth slower, and the program took as many cycles.
        let throttled = on_device(around(1.1), |_| Some(1755.0 / 1.1));
        for (old, new, clocks) in [(&fast, &throttled, ["1755", "1595"]), (&throttled, &fast, ["1595", "1755"])] {
            let found = of(old, new);
            assert_eq!(found.verdict, Verdict::Ambiguous);
            let says = format!("cycles do not confirm it: the clock was {} MHz and is {} MHz", clocks[0], clocks[1]);
            assert!(found.why.contains(&says), "{}", found.why);
        }
        // A clock that is not known confirms nothing, and nothing has to be confirmed where time tells no difference.
        let unknown = on_device(around(1.1), |at| Some(1755.0).filter(|_| at != 3));
        let found = of(&fast, &unknown);
        assert!(found.verdict == Verdict::Ambiguous && found.why.contains("not known of each run"), "{}", found.why);
        let mut before = on_device(around(1.1), steady);
        before.results[0].clocks_mhz = None;
        assert_eq!(of(&before, &fast).verdict, Verdict::Ambiguous);
        assert_eq!(of(&fast, &on_device(around(1.0), |_| None)).verdict, Verdict::Same);
    }

    #[test]
    fn what_differs_is_named_and_not_compared() {
        let refused = |change: &dyn Fn(&mut Measurements)| {
            let (old, mut new) = (run(around(1.0)), run(around(1.0)));
            change(&mut new);
            compare(&old, &new, &Thresholds::default()).unwrap_err().to_string()
        };
        assert!(refused(&|new| new.command = "latency".into()).contains("step was measured then, latency now"));
        assert!(refused(&|new| new.machine.threads += 1).contains("threads"));
        assert!(refused(&|new| drop(new.settings.insert("seed".into(), 1.into()))).contains("seed was not set then"));
        assert!(refused(&|new| new.results[0].name = "other".into()).contains("`step` was measured then only"));
        assert!(refused(&|new| new.results.push(new.results[0].clone())).contains("`step` is a row twice"));
        assert!(refused(&|new| new.results[0].seconds = None).contains("`step` was measured then only"));
    }
}
