//! Whether work became slower: verdicts on two runs of a benchmark.
//!
//! Two files are compared by nvbench's rule: the intervals from the fastest run to the third quartile must be apart by a clear
//! gap. Files are of different minutes, so only a large difference can be told. Two programs that run in turn are compared by
//! the ratios of their rounds, each of new processes, since two processes of one program differ by a per cent for as long as
//! they live; the interval of the ratio's centre (Wilcoxon's signed ranks) must lie beyond the gap. Ranks, because a round in
//! which the machine was elsewhere can be off by 20 %: it widens an interval by Student's t until nothing can be told.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::measurement::{Measurement, Measurements};
use super::timing::Timing;
use crate::error::{Error, Result};
use crate::eval::statistics::centre;
use crate::files::read_text;

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

/// Rounds beyond which nobody waits for a verdict.
const MOST_ROUNDS: usize = 200;

/// When a difference counts. Read from TOML; what a file leaves out has these values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Of files: the fewest runs of each side.
    pub min_runs: usize,
    /// Of files: the most noise (distance of quartiles over median) of each side.
    pub max_noise: f64,
    /// Of files: the least gap between the intervals, as a share.
    pub clear_gap: f64,
    /// Of programs in turn: the fewest rounds, and the most.
    pub min_rounds: usize,
    pub max_rounds: usize,
    /// Of programs in turn: the confidence of the ratio's interval.
    pub confidence: f64,
    /// Of programs in turn: the interval must lie beyond this share to be FAST or SLOW, and within it to be SAME.
    pub least_change: f64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            min_runs: 10,
            max_noise: 0.1,
            clear_gap: 0.005,
            min_rounds: 8,
            max_rounds: 24,
            confidence: 0.99,
            least_change: 0.01,
        }
    }
}

impl Thresholds {
    /// Reads a file of thresholds. Fails if a key is unknown or a value cannot be.
    pub fn read(path: &Path) -> Result<Thresholds> {
        let read: Thresholds =
            toml::from_str(&read_text(path)?).map_err(|e| Error::file(path, e.to_string().trim_end().to_string()))?;
        let shares = [("clear_gap", read.clear_gap), ("least_change", read.least_change)];
        let wrong = shares.iter().find(|(_, share)| !(0.0..1.0).contains(share)).map(|(name, _)| *name);
        // Where a quarter of the runs takes many times as long as another, noise is above 1.
        let wrong = wrong.or((!(0.0..f64::INFINITY).contains(&read.max_noise)).then_some("max_noise"));
        let wrong = wrong.or((read.min_runs == 0).then_some("min_runs"));
        let wrong = wrong.or((!(0.5..1.0).contains(&read.confidence)).then_some("confidence"));
        // Fewer than that have no interval of so much confidence.
        let enough = centre(&vec![0.0; read.max_rounds.min(MOST_ROUNDS)], read.confidence).is_some();
        let rounds = read.min_rounds >= 2 && (read.min_rounds..=MOST_ROUNDS).contains(&read.max_rounds) && enough;
        match wrong.or((!rounds).then_some("min_rounds and max_rounds")) {
            Some(name) => Err(Error::file(
                path,
                format!("{name} makes no sense; configs/bench-thresholds.toml says what it may be"),
            )),
            None => Ok(read),
        }
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
    let pairs = new.results.iter().filter_map(|new| {
        let before = old.find(&new.name, &new.parameters)?.seconds.as_ref()?;
        Some((new, before, new.seconds.as_ref()?))
    });
    let rows = pairs
        .map(|(row, old, new)| {
            let (verdict, why) = of_files(old, new, thresholds);
            let (name, parameters) = (row.name.clone(), row.parameters.clone());
            let [old, new] = [old.p50(), new.p50()];
            Compared { name, parameters, old, new, ratio: new / old, interval: None, verdict, why }
        })
        .collect();
    Ok(rows)
}

fn of_files(old: &Timing, new: &Timing, thresholds: &Thresholds) -> (Verdict, String) {
    let Thresholds { min_runs, max_noise, clear_gap, .. } = thresholds;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
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
    let interval = |timing: &Timing| (timing.min(), timing.quantile(0.75));
    let ((old_min, old_q3), (new_min, new_q3)) = (interval(old), interval(new));
    let (slower, faster) = (new_min / old_q3 - 1.0, old_min / new_q3 - 1.0);
    let within = |median: f64, (min, q3): (f64, f64)| (min..=q3).contains(&median);
    if slower >= *clear_gap {
        (Verdict::Slow, format!("its fastest run is {} beyond three quarters of the old", percent(slower)))
    } else if faster >= *clear_gap {
        (Verdict::Fast, format!("three quarters of its runs are {} below the fastest old one", percent(faster)))
    } else if within(new.p50(), (old_min, old_q3)) && within(old.p50(), (new_min, new_q3)) {
        (Verdict::Same, "each median is among the other's runs from the fastest to the third quartile".into())
    } else {
        (Verdict::Ambiguous, "the runs overlap, but not by their medians".into())
    }
}

/// Programs that run in turn, round by round.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Median seconds of the old and the new of each round.
    medians: Vec<(f64, f64)>,
}

impl Rounds {
    /// Adds a round, of processes that were started for it.
    pub fn push(&mut self, old: &Timing, new: &Timing) {
        self.medians.push((old.p50(), new.p50()));
    }

    /// What can be said so far; `None` if more rounds may tell.
    pub fn verdict(&self, name: &str, parameters: &Map<String, Value>, thresholds: &Thresholds) -> Option<Compared> {
        let Thresholds { min_rounds, max_rounds, confidence, least_change, .. } = *thresholds;
        let n = self.medians.len();
        if n < min_rounds {
            return None;
        }
        let logs: Vec<f64> = self.medians.iter().map(|(old, new)| (new / old).ln()).collect();
        let found = centre(&logs, confidence)?;
        let interval = (found.interval.low.exp(), found.interval.high.exp());
        let (low, high) = (interval.0 - 1.0, interval.1 - 1.0);
        let verdict = match () {
            () if low > least_change => Verdict::Slow,
            () if high < -least_change => Verdict::Fast,
            () if low >= -least_change && high <= least_change => Verdict::Same,
            () if n >= max_rounds => Verdict::Ambiguous,
            () => return None,
        };
        let percent = |share: f64| format!("{:+.2} %", 100.0 * share);
        let why = format!(
            "{n} rounds: {} to {} ({:.0} % confidence), {:.1} % is what counts",
            percent(low),
            percent(high),
            100.0 * confidence,
            100.0 * least_change
        );
        let median =
            |side: fn(&(f64, f64)) -> f64| Timing::new(self.medians.iter().map(side).collect()).map(|t| t.p50());
        let [old, new] = [median(|m| m.0), median(|m| m.1)].map(|median| median.unwrap_or(f64::NAN));
        let (name, parameters, ratio) = (name.to_string(), parameters.clone(), found.estimate.exp());
        Some(Compared { name, parameters, old, new, ratio, interval: Some(interval), verdict, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn rounds_go_on_until_their_ratio_is_clear() {
        let judge = |ratios: &[f64]| {
            let mut rounds = Rounds::default();
            ratios.iter().for_each(|ratio| rounds.push(&around(1.0), &around(*ratio)));
            rounds.verdict("step", &Map::new(), &Thresholds::default()).map(|compared| compared.verdict)
        };
        assert_eq!(judge(&[1.03; 7]), None, "too few");
        assert_eq!(judge(&[1.03, 1.02, 1.03, 1.04, 1.03, 1.03, 1.02, 1.04]), Some(Verdict::Slow));
        assert_eq!(judge(&[0.97, 0.96, 0.97, 0.98, 0.97, 0.97, 0.96, 0.98]), Some(Verdict::Fast));
        assert_eq!(judge(&[1.0, 1.002, 0.998, 1.0, 1.001, 0.999, 1.0, 1.0]), Some(Verdict::Same));
        let far = [1.1, 0.9].repeat(4);
        assert_eq!(judge(&far), None);
        assert_eq!(judge(&far.repeat(3)), Some(Verdict::Ambiguous));
        // Rounds in which the machine was elsewhere.
        let slower = [&[1.03, 1.035, 1.025, 1.03, 1.04, 1.02].repeat(3)[..], &[0.8, 1.5]].concat();
        assert_eq!(judge(&slower), Some(Verdict::Slow));
    }

    #[test]
    fn thresholds_that_cannot_be_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Thresholds::read(&path)
        };
        assert_eq!(read("").unwrap(), Thresholds::default());
        assert_eq!(read(include_str!("../../configs/bench-thresholds.toml")).unwrap(), Thresholds::default());
        for (wrong, named) in [
            ("max_nose = 1", "max_nose"),
            ("max_noise = -0.1", "max_noise"),
            ("max_noise = inf", "max_noise"),
            ("min_rounds = 1", "min_rounds"),
            ("confidence = 0.9999999999", "max_rounds"),
            ("max_rounds = 1000000000", "max_rounds"),
        ] {
            assert!(read(wrong).unwrap_err().to_string().contains(named), "{wrong}");
        }
    }
}
