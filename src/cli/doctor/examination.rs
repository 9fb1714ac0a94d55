//! Which kernels ran, and whether they compute what they should.

use std::collections::BTreeSet;
use std::io::Write;

use fissfuse::device::Gpu;
use fissfuse::profile::proof::{self, Proof};
use fissfuse::report::table;
use serde::Serialize;

/// All checks of a device.
#[derive(Serialize)]
pub struct Examination {
    device: String,
    checks: Vec<Checked>,
    /// Why the device could not be examined to the end.
    pub failure: Option<String>,
    /// Kernels that the device takes.
    kernels: BTreeSet<&'static str>,
    /// Those of them that nothing launched.
    not_run: BTreeSet<&'static str>,
}

/// A check in one arithmetic.
#[derive(Serialize)]
struct Checked {
    arithmetic: &'static str,
    holds: bool,
    #[serde(flatten)]
    proof: Proof,
}

impl Examination {
    /// Runs all checks of a device's arithmetic and prints them. Nothing runs after an error: a device that met one is lost.
    pub fn of(gpu: &Gpu, out: &mut dyn Write) -> anyhow::Result<Examination> {
        let arithmetic = gpu.arithmetic().name();
        let (mut checks, mut failure) = (Vec::new(), None);
        for check in proof::checks(gpu)? {
            match check.run(gpu, true) {
                Ok(proof) => checks.push(Checked { arithmetic, holds: proof.holds(), proof }),
                Err(error) => {
                    failure = Some(format!("{}: {error}", check.name));
                    break;
                }
            }
        }
        let kernels = proof::kernels(gpu)?;
        let mut done = Examination { device: format!("{gpu:?}"), checks, failure, not_run: kernels.clone(), kernels };
        done.count();
        writeln!(out, "\n{arithmetic} arithmetic; errors are relative to the largest value")?;
        let header =
            ["check", "kernels", "comparisons", "largest error for its bound", "error", "at most", "repeats", ""];
        writeln!(out, "{}", table(&header, done.checks.iter().map(Checked::row)))?;
        if let Some(failure) = &done.failure {
            writeln!(out, "FAILED at {failure}")?;
        }
        Ok(done)
    }

    /// Adds the checks of the same device's other arithmetic.
    pub fn add(&mut self, other: Examination) {
        self.checks.extend(other.checks);
        self.failure = self.failure.take().or(other.failure);
        self.count();
    }

    fn count(&mut self) {
        let ran: BTreeSet<&str> = self.checks.iter().flat_map(|check| &check.proof.kernels).copied().collect();
        self.not_run.retain(|kernel| !ran.contains(kernel));
    }

    /// The kernels that ran in checks all of which hold.
    pub fn agreeing(&self) -> BTreeSet<&'static str> {
        let of = |holds: bool| {
            let checks = self.checks.iter().filter(move |check| check.holds == holds);
            checks.flat_map(|check| &check.proof.kernels).copied().collect::<BTreeSet<_>>()
        };
        &of(true) - &of(false)
    }

    /// What is printed last: that all is well, or what is not.
    pub fn verdict(&self) -> Result<String, String> {
        let (agreeing, all) = (self.agreeing().len(), self.kernels.len());
        let count = format!("{agreeing} of {all} kernels ran and agree with the CPU or with their definition");
        let wrong: Vec<&str> = self.checks.iter().filter(|check| !check.holds).map(|c| c.proof.name.as_str()).collect();
        let mut faults = Vec::new();
        if let Some(failure) = &self.failure {
            faults.push(format!("the examination ended at {failure}"));
        }
        if !wrong.is_empty() {
            faults.push(format!("{} checks do not hold: {}", wrong.len(), wrong.join("; ")));
        }
        if !self.not_run.is_empty() {
            let names: Vec<&str> = self.not_run.iter().copied().collect();
            let why = if self.failure.is_some() { "after that failure" } else { "since no check launches them here" };
            faults.push(format!("not run {why}: {}", names.join(", ")));
        }
        match faults.is_empty() {
            true => Ok(format!("{count}.")),
            false => Err(format!("{count}; {}", faults.join("; "))),
        }
    }
}

impl Checked {
    fn row(&self) -> Vec<String> {
        let Proof { name, compared, repeats, kernels, .. } = &self.proof;
        let (what, error, bound) = match self.proof.worst() {
            Some(worst) => (worst.what.clone(), format!("{:.1e}", worst.error), format!("{:.1e}", worst.bound)),
            None => ("nothing compared".into(), String::new(), String::new()),
        };
        let [kernels, compared] = [kernels.len(), compared.len()].map(|n| n.to_string());
        let repeats = repeats.map_or("", |repeats| if repeats { "yes" } else { "NO" }).into();
        let verdict = if self.holds { "" } else { "WRONG" }.into();
        vec![name.clone(), kernels, compared, what, error, bound, repeats, verdict]
    }
}
