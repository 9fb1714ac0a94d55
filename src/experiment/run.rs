//! Runs what is left of an experiment: on several threads or devices, and in several processes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::{Plan, Trial};
use super::trial::{self, Data, RESULT, TrialResult};
use crate::device::cuda::Arithmetic;
use crate::device::{DeviceChoice, Gpu};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::shard::Shard;

/// How an experiment is run.
pub struct Options<'a> {
    /// Its folder.
    pub out: &'a Path,
    /// Trials at a time.
    pub jobs: usize,
    /// What computes; jobs take them in turn.
    pub devices: &'a [DeviceChoice],
    /// What products are made of on CUDA devices.
    pub arithmetic: Arithmetic,
    /// The part of the trials that this process computes.
    pub shard: Shard,
}

/// Where all trials stand.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Results by the trial's folder.
    pub finished: HashMap<PathBuf, TrialResult>,
    /// Why trials failed, by their folder.
    pub failed: HashMap<PathBuf, String>,
    /// Trials that are another process's or shard's.
    pub elsewhere: Vec<PathBuf>,
    /// Of each row, the point of its grid that was chosen, once it is.
    pub chosen: Vec<Option<usize>>,
}

impl Outcome {
    /// Whether a trial that was another process's is finished by now.
    pub fn is_overtaken(&self, experiment: &Path) -> bool {
        self.elsewhere.iter().any(|folder| experiment.join(folder).join(RESULT).exists())
    }
}

/// Computes what is not there yet; `said` gets a line for each trial that ends. Trials that fail do not stop the others.
/// Looks again as long as that brings something: other processes on the same folder may have finished meanwhile.
pub fn run(plan: &Plan, data: &Data, options: &Options, said: &(dyn Fn(&str) + Sync)) -> Result<Outcome> {
    let mut outcome = Outcome { chosen: vec![None; plan.rows.len()], ..Outcome::default() };
    let choosing: Vec<Trial> = (0..plan.rows.len()).flat_map(|row| plan.choosing(row)).collect();
    let later = plan.rows.iter().filter(|row| row.hole.is_none() && row.points.len() > 1).count();
    loop {
        let before = outcome.finished.len() + outcome.failed.len();
        outcome.elsewhere.clear();
        // The choices first, for what is trained with the other seeds depends on them.
        compute(&choosing, later * (plan.seeds.len() - 1), data, options, &mut outcome, said)?;
        for row in 0..plan.rows.len() {
            outcome.chosen[row] = choose(plan, row, &outcome);
        }
        let chosen =
            |(row, point): (usize, &Option<usize>)| point.map(|point| plan.chosen(row, point)).unwrap_or_default();
        let trials: Vec<Trial> = outcome.chosen.iter().enumerate().flat_map(chosen).collect();
        compute(&trials, 0, data, options, &mut outcome, said)?;
        if outcome.elsewhere.is_empty() || outcome.finished.len() + outcome.failed.len() == before {
            return Ok(outcome);
        }
    }
}

/// Where all trials stand: nothing is computed, and what is not finished counts as another process's.
pub fn standing(plan: &Plan, data: &Data, experiment: &Path) -> Result<Outcome> {
    let mut outcome = Outcome { chosen: vec![None; plan.rows.len()], ..Outcome::default() };
    for row in 0..plan.rows.len() {
        let choosing = plan.choosing(row);
        let left = unfinished(&choosing, data, experiment, &mut outcome)?;
        outcome.elsewhere.extend(left.into_iter().map(|trial| trial.folder.clone()));
        outcome.chosen[row] = choose(plan, row, &outcome);
        let trials = outcome.chosen[row].map(|point| plan.chosen(row, point)).unwrap_or_default();
        unfinished(&trials, data, experiment, &mut outcome)?;
    }
    Ok(outcome)
}

/// Those that are neither finished nor failed; which are finished is noted.
fn unfinished<'t>(
    trials: &'t [Trial],
    data: &Data,
    experiment: &Path,
    outcome: &mut Outcome,
) -> Result<Vec<&'t Trial>> {
    let mut left = Vec::new();
    for trial in trials {
        if outcome.finished.contains_key(&trial.folder) || outcome.failed.contains_key(&trial.folder) {
            continue;
        }
        match TrialResult::of(trial, data, experiment)? {
            Some(result) => drop(outcome.finished.insert(trial.folder.clone(), result)),
            None => left.push(trial),
        }
    }
    Ok(left)
}

/// The point of the best validation MRR, the first of equal ones; none while one of them is not there.
fn choose(plan: &Plan, row: usize, outcome: &Outcome) -> Option<usize> {
    let choosing = plan.choosing(row);
    if choosing.is_empty() {
        return (!plan.rows[row].points.is_empty()).then_some(0);
    }
    // A point that failed is none to choose; one that is still computed elsewhere may become it.
    if choosing.iter().any(|trial| outcome.elsewhere.contains(&trial.folder)) {
        return None;
    }
    let reciprocal = |trial: &Trial| outcome.finished.get(&trial.folder)?.valid.map(|valid| valid.reciprocal);
    let tried = choosing.iter().filter_map(|trial| Some((trial.point, reciprocal(trial)?)));
    tried.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(point, _)| point)
}

/// What workers share.
struct Shared<'t> {
    next: usize,
    left: usize,
    spent: Vec<f64>,
    outcome: &'t mut Outcome,
    stopped: Option<Error>,
}

fn compute(
    trials: &[Trial],
    later: usize,
    data: &Data,
    options: &Options,
    outcome: &mut Outcome,
    said: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let left = unfinished(trials, data, options.out, outcome)?;
    let (todo, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|trial| options.shard.has(trial.number));
    outcome.elsewhere.extend(others.into_iter().map(|trial| trial.folder.clone()));
    if todo.is_empty() {
        return Ok(());
    }
    let jobs = options.jobs.clamp(1, todo.len());
    // All of them before any work is done.
    let device = |job: usize| options.devices.get(job % options.devices.len().max(1));
    let open = |job: usize| device(job).map_or(Ok(None), |device| device.open(options.arithmetic));
    let gpus = (0..jobs).map(open).collect::<Result<Vec<Option<Gpu>>>>()?;
    let (left, spent) = (todo.len() + later, Vec::new());
    let shared = Mutex::new(Shared { next: 0, left, spent, outcome, stopped: None });
    thread::scope(|scope| {
        for gpu in &gpus {
            let (todo, shared) = (&todo, &shared);
            scope.spawn(move || work((gpu.as_ref(), jobs), todo, data, options, shared, said));
        }
    });
    let shared = shared.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.stopped.map_or(Ok(()), Err)
}

/// One of so many jobs: takes one trial after the other.
fn work(
    (gpu, jobs): (Option<&Gpu>, usize),
    todo: &[&Trial],
    data: &Data,
    options: &Options,
    shared: &Mutex<Shared>,
    said: &(dyn Fn(&str) + Sync),
) {
    let locked = || shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        let trial = {
            let mut shared = locked();
            if shared.stopped.is_some() || interrupt::asked() {
                let how = || format!("finished trials are kept in {}; the same command goes on", options.out.display());
                if let (None, Err(error)) = (&shared.stopped, interrupt::check(how)) {
                    shared.stopped = Some(error);
                }
                return;
            }
            let Some(trial) = todo.get(shared.next) else { return };
            shared.next += 1;
            *trial
        };
        let start = Instant::now();
        let ran = trial::run(trial, data, options.out, gpu);
        let mut shared = locked();
        shared.left -= 1;
        shared.spent.push(start.elapsed().as_secs_f64());
        let mean = shared.spent.iter().sum::<f64>() / shared.spent.len() as f64;
        let left = Duration::from_secs_f64(mean * shared.left as f64 / jobs as f64);
        let rest = match shared.left {
            0 => String::new(),
            n => format!("; {n} left, about {}", indicatif::HumanDuration(left)),
        };
        let name = trial.folder.display();
        match ran {
            Ok(Some(result)) => {
                let seconds = start.elapsed().as_secs_f64();
                said(&format!("{name}: test MRR {:.2} %, {seconds:.0} s{rest}", 100.0 * result.test.reciprocal));
                shared.outcome.finished.insert(trial.folder.clone(), result);
            }
            Ok(None) => {
                said(&format!("{name}: another process is at it{rest}"));
                shared.outcome.elsewhere.push(trial.folder.clone());
            }
            Err(error @ Error::Stopped { .. }) => {
                shared.stopped.get_or_insert(error);
            }
            Err(error) => {
                said(&format!("{name}: failed: {error}{rest}"));
                shared.outcome.failed.insert(trial.folder.clone(), error.to_string());
            }
        }
    }
}
