//! One table of checks that compares every kernel with the CPU or with its definition: `fissfuse doctor` and the tests run it.

mod attention;
mod blocks;
mod decoder;
mod definition;
mod device;
mod encoder;
mod inference;
mod link;
mod models;
mod operations;
mod sampling;
mod tiles;
mod top_k;

use std::collections::BTreeSet;
use std::time::Instant;

use bytemuck::{NoUninit, cast_slice};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::device::Gpu;
use crate::device::cuda::Arithmetic;
use crate::device::cuda::kernels::Ptx;
use crate::error::Result;

/// Kernels at work on given inputs, and what they should give.
pub struct Check {
    /// The kernels' work, such as "project" or "encoder norms", and sizes where these are not many.
    pub name: String,
    repeated: bool,
    run: Box<Run>,
}

/// Runs a check's work on a device, and notes what it gives beside what it should.
type Run = dyn Fn(&Gpu, &mut Findings) -> Result<()> + Send + Sync;

/// Results beside those wanted.
#[derive(Default)]
pub struct Findings {
    compared: Vec<Compared>,
    bits: Xxh3,
}

/// The largest error of some results.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// What was compared.
    pub what: String,
    /// Largest difference, relative to the largest value wanted; infinite if one is no number.
    pub error: f32,
    /// The largest error that rounding explains.
    pub bound: f32,
}

/// What a check found on a device.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// The check's name.
    pub name: String,
    /// What it compared.
    pub compared: Vec<Compared>,
    /// Whether a second run had the same bits, if there was one.
    pub repeats: Option<bool>,
    /// A hash of all results' bits, to compare devices of one kind by.
    pub bits: String,
    /// The kernels that it launched.
    pub kernels: BTreeSet<&'static str>,
    /// Wall time of all runs and of what they were compared with: no measure of the device.
    pub seconds: f64,
}

impl Compared {
    /// Whether the error is what rounding makes.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }

    /// The error as a share of its bound, to find the worst by; one that is beyond a bound of 0 is infinite.
    fn severity(&self) -> f32 {
        if self.error == 0.0 { 0.0 } else { self.error / self.bound }
    }
}

impl Findings {
    /// Results that differ from those wanted by rounding.
    pub fn near(&mut self, what: impl Into<String>, got: &[f32], want: &[f32], bound: f32) {
        self.near_to(what, got, want, (0.0, bound));
    }

    /// The same with errors relative to at least this.
    fn near_to(&mut self, what: impl Into<String>, got: &[f32], want: &[f32], (floor, bound): (f32, f32)) {
        self.bits.update(cast_slice(got));
        self.compared.push(Compared { what: what.into(), error: relative_error(got, want, floor), bound });
    }

    /// Results that have no error: the share that differs is compared.
    pub fn equal<T: NoUninit + PartialEq>(&mut self, what: impl Into<String>, got: &[T], want: &[T]) {
        self.bits.update(cast_slice(got));
        let differ = got.iter().zip(want).filter(|(got, want)| got != want).count();
        let error = if got.len() == want.len() { differ as f32 / want.len().max(1) as f32 } else { f32::INFINITY };
        self.compared.push(Compared { what: what.into(), error, bound: 0.0 });
    }
}

impl Check {
    fn new(name: impl Into<String>, run: impl Fn(&Gpu, &mut Findings) -> Result<()> + Send + Sync + 'static) -> Check {
        Check { name: name.into(), repeated: true, run: Box::new(run) }
    }

    /// The same without a second run, for what is made of kernels that other checks repeat.
    fn once(self) -> Check {
        Check { repeated: false, ..self }
    }

    /// Runs it, with `again` once more for the same bits.
    pub fn run(&self, gpu: &Gpu, again: bool) -> Result<Proof> {
        let start = Instant::now();
        let mut runs = vec![Findings::default()];
        if again && self.repeated {
            runs.push(Findings::default());
        }
        let (done, kernels) = gpu.launches_of(|| runs.iter_mut().try_for_each(|findings| (self.run)(gpu, findings)));
        done?;
        let repeats = runs.get(1).map(|second| second.bits.digest() == runs[0].bits.digest());
        let Findings { compared, bits } = runs.swap_remove(0);
        let (name, bits, seconds) =
            (self.name.clone(), format!("{:016x}", bits.digest()), start.elapsed().as_secs_f64());
        Ok(Proof { name, compared, repeats, bits, kernels, seconds })
    }
}

impl Proof {
    /// Whether it repeats, and compared something, all of which is as it should be.
    pub fn holds(&self) -> bool {
        self.repeats != Some(false) && !self.compared.is_empty() && self.compared.iter().all(Compared::holds)
    }

    /// What is nearest to its bound, or furthest beyond it.
    pub fn worst(&self) -> Option<&Compared> {
        self.compared.iter().max_by(|a, b| a.severity().total_cmp(&b.severity()))
    }
}

/// Largest difference relative to the largest value wanted and at least to `floor`; infinite if one is no number or missing.
fn relative_error(got: &[f32], want: &[f32], floor: f32) -> f32 {
    let largest = want.iter().fold(floor, |max, x| max.max(x.abs()));
    let worst = got.iter().zip(want).fold(0.0f32, |max, (g, w)| {
        let difference = (g - w).abs();
        if difference.is_nan() { f32::INFINITY } else { max.max(difference) }
    });
    match worst {
        _ if got.len() != want.len() => f32::INFINITY,
        0.0 => 0.0,
        worst => worst / largest,
    }
}

/// Values by their bits, so that -0 is not 0 and a NaN is itself.
fn bits(values: &[f32]) -> &[u32] {
    cast_slice(values)
}

/// Largest relative error of kernels that sum f32 in another order: some hundreds of terms.
const SUMS: f32 = 1e-5;

/// All checks of the kernels that a device of this arithmetic runs. What does not depend on the arithmetic is in those of
/// mixed arithmetic.
pub fn checks(gpu: &Gpu) -> Result<Vec<Check>> {
    let mut checks = operations::checks(gpu)?;
    checks.push(operations::not_a_number());
    if gpu.arithmetic() != Arithmetic::Bf16 {
        checks.extend(encoder::checks());
        checks.extend(inference::checks());
        checks.extend(models::checks(gpu.arithmetic()));
        checks.push(link::from_features());
    }
    match gpu.arithmetic() {
        // What does not train is as in mixed arithmetic.
        Arithmetic::Bf16 => {}
        Arithmetic::F32 => checks.extend([operations::adamw(), operations::clipping(), link::check()]),
        Arithmetic::Mixed => {
            checks.extend(decoder::checks());
            checks.extend(sampling::checks());
            checks.extend(blocks::checks());
            checks.extend(attention::checks());
            checks.extend(tiles::checks());
            checks.extend(top_k::checks());
            checks.extend(device::checks());
        }
    }
    Ok(checks)
}

/// Names of all kernels that a device takes of those embedded.
pub fn kernels(gpu: &Gpu) -> Result<BTreeSet<&'static str>> {
    Ok(Ptx::for_capability(gpu.capability()?).into_iter().flat_map(Ptx::entries).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_and_nothing_that_is_missing_is_small() {
        assert_eq!(relative_error(&[1.0, 3.0], &[1.0, 4.0], 0.0), 0.25);
        assert_eq!(relative_error(&[0.0, 1.0], &[0.0, 0.0], 2.0), 0.5);
        assert_eq!(relative_error(&[0.0], &[0.0], 0.0), 0.0);
        for wrong in [&[f32::NAN, 4.0][..], &[1.0, f32::INFINITY], &[1.0]] {
            assert_eq!(relative_error(wrong, &[1.0, 4.0], 0.0), f32::INFINITY);
        }
    }

    #[test]
    fn a_proof_holds_if_something_was_compared_and_all_of_it_is_near() {
        let proof = |find: &dyn Fn(&mut Findings)| {
            let mut findings = Findings::default();
            find(&mut findings);
            let Findings { compared, .. } = findings;
            Proof {
                name: String::new(),
                compared,
                repeats: Some(true),
                bits: String::new(),
                kernels: BTreeSet::new(),
                seconds: 0.0,
            }
        };
        assert!(!proof(&|_| {}).holds());
        let near = |f: &mut Findings| f.near("near", &[1.0, 2.01], &[1.0, 2.0], 1e-2);
        assert!(proof(&near).holds());
        assert!(!Proof { repeats: Some(false), ..proof(&near) }.holds());
        let off = proof(&|f| {
            near(f);
            f.equal("equal", &[1u32, 2], &[1, 3]);
        });
        assert!(!off.holds());
        assert_eq!(off.worst().unwrap().what, "equal");
    }
}
