//! One step of contrastive pre-training on pairs drawn by seed.

use rand::Rng;

use crate::autograd::{Cost, Parameters, Profile};
use crate::device::{Clock, Gpu};
use crate::encoder::clip::{ClipConfig, weights};
use crate::error::Result;
use crate::ops::Moments;
use crate::random::{Purpose, generator};
use crate::train::pretrain::{PretrainConfig, PretrainSettings, Step};

/// Encoders, their optimizer and pairs that they see again and again.
pub struct ContrastiveStep {
    config: ClipConfig,
    settings: PretrainSettings,
    parameters: Parameters,
    moments: Vec<Moments>,
    texts: Vec<Vec<u32>>,
    images: Vec<Vec<f32>>,
    gpu: Option<Gpu>,
    steps: u64,
}

impl ContrastiveStep {
    /// Draws weights, and `pairs` images with a text of `tokens` tokens each.
    pub fn new(of: &PretrainConfig, pairs: usize, tokens: usize, gpu: Option<Gpu>) -> Result<ContrastiveStep> {
        let config = of.model.checked()?;
        let parameters = weights::initial(&config, of.train.seed)?;
        let moments = parameters.tensors().iter().map(|t| Moments::zeros(t.shape()).to(gpu.as_ref()));
        let moments = moments.collect::<Result<_>>()?;
        let mut rng = generator(of.train.seed, Purpose::Benchmark, 4);
        let (words, end) = (config.text_config.vocab_size as u32, config.text_config.eos_token_id);
        let mut text = || (1..tokens).map(|_| rng.random_range(end + 1..words)).chain([end]).collect();
        let texts = (0..pairs).map(|_| text()).collect();
        let size = config.vision_config.image_size;
        let mut image = || (0..3 * size * size).map(|_| rng.random_range(-2.0..2.0)).collect();
        let images = (0..pairs).map(|_| image()).collect();
        let (settings, parameters) = (of.train.clone(), parameters.to(gpu.as_ref())?);
        Ok(ContrastiveStep { config, settings, parameters, moments, texts, images, gpu, steps: 0 })
    }

    /// Number of scalars that are trained.
    pub fn parameters(&self) -> u64 {
        weights::count(&self.config)
    }

    /// A step from beginning to end; gives its loss.
    pub fn run(&mut self) -> Result<f32> {
        self.on(None)
    }

    /// A step, and what those of its operations cost that ran; without the optimizer.
    pub fn cost(&mut self) -> Result<Cost> {
        let profile = Profile::new(Clock::Host);
        self.on(Some(&profile))?;
        Ok(profile.timed()?.iter().map(|timed| timed.sample.cost()).sum())
    }

    fn on(&mut self, profile: Option<&Profile>) -> Result<f32> {
        let place = format!("step {}", self.steps + 1);
        let number = (self.steps, u64::MAX);
        let (config, settings, gpu) = (&self.config, &self.settings, self.gpu.as_ref());
        let step = Step { config, settings, number, place: &place, gpu, profile };
        let (texts, images): (Vec<&[u32]>, Vec<&[f32]>) =
            (self.texts.iter().map(Vec::as_slice).collect(), self.images.iter().map(Vec::as_slice).collect());
        let stepped = step.run((&mut self.parameters, &mut self.moments), &texts, &images)?;
        self.steps += 1;
        Ok(stepped.losses.iter().sum::<f32>() / 2.0)
    }
}
