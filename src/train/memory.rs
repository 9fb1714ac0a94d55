//! What a run needs of memory, before any of it is taken.

use crate::autograd::Parameters;
use crate::bytes::Bytes;
use crate::data::Sample;
use crate::device::Gpu;
use crate::device::cpu::available_memory;
use crate::error::{Error, Result};
use crate::model::ModelConfig;

use super::config::TrainSettings;

/// Bytes that a run needs at least: what fails to fit cannot run, what fits may need more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Weights, their gradients, AdamW's two moments, each as f32.
    pub model: u64,
    /// Vectors of a step's pairs and their gradients.
    pub step: u64,
}

impl Needs {
    /// Of a model trained on these samples, on each of so many devices.
    pub fn of(config: &ModelConfig, settings: &TrainSettings, train: &[Sample], devices: usize) -> Result<Needs> {
        config.check()?;
        let longest = train.iter().map(|sample| sample.candidates.len()).max().unwrap_or(0);
        let list = match settings.negatives {
            0 => longest,
            negatives => longest.min(negatives.saturating_add(1)),
        };
        let mentions = settings.batch_size.min(train.len()).div_ceil(devices.max(1));
        // Each pair has a vector of each score's two sides, at least where attention makes them.
        let values = (mentions as u64).saturating_mul(list as u64).saturating_mul(config.d as u64);
        Ok(Needs { model: Parameters::count_of(config).saturating_mul(16), step: values.saturating_mul(8) })
    }

    /// Fails if they exceed what is free on the device that computes, or on the host, where a model is made in any case.
    pub fn check(&self, gpu: Option<&Gpu>) -> Result<()> {
        let host = available_memory().map(|free| free as u64);
        match gpu {
            Some(gpu) => {
                Needs { step: 0, ..*self }.fit(host, "host")?;
                self.fit(Some(gpu.available()? as u64), "device")
            }
            None => self.fit(host, "host"),
        }
    }

    fn fit(&self, free: Option<u64>, place: &str) -> Result<()> {
        let needed = self.model.saturating_add(self.step);
        match free.filter(|&free| needed > free) {
            None => Ok(()),
            Some(free) => Err(Error::invalid(format!(
                "training needs {} at least ({} for the model and AdamW, {} for a step), of the {place}'s memory {} are free; \
                 lower model.d, train.batch_size or train.negatives",
                Bytes(needed),
                Bytes(self.model),
                Bytes(self.step),
                Bytes(free)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_beyond_all_memory_is_refused_before_it_is_made() {
        let needs = |d| Needs::of(&ModelConfig { d, ..ModelConfig::default() }, &TrainSettings::default(), &[], 1);
        let small = needs(100).unwrap();
        let model = crate::model::Model::new(ModelConfig::default(), 0).unwrap();
        assert_eq!(small.model, 16 * model.parameters().count() as u64);
        assert!(small.check(None).is_ok());
        let error = needs(1_000_000).unwrap().check(None).unwrap_err().to_string();
        assert!(error.contains("GB at least") && error.contains("lower model.d"), "{error}");
        assert!(needs(usize::MAX).is_err());
    }
}
