//! The towers' weights as they are trained: how they start, and how files hold them.

use super::config::ClipConfig;
use super::parameters::parameters;
use crate::autograd::Parameters;
use crate::encoder::loader::Alias;
use crate::encoder::trained::weights::{on_tape, ordered};
use crate::encoder::trained::{Depth, Parameter, Role, Tower, weights};
use crate::error::Result;
use crate::random::{Purpose, generator, uniform};
use crate::tensor::{Shards, Tensor};

/// Logarithm of what cosines are multiplied by.
pub const LOG_SCALE: &str = "logit_scale";

/// Where it starts: ln(1 / 0.07), as CLIP's.
const FIRST_LOG_SCALE: f32 = 2.659_26;

/// All parameters, those that decay first and the scale last.
pub fn all(config: &ClipConfig) -> Vec<Parameter> {
    let mut all = ordered(parameters(config));
    let (tower, depth) = (Tower::Vision, Depth::Output);
    all.push(Parameter { name: LOG_SCALE.into(), shape: Vec::new(), role: Role::LogScale, tower, depth, read: true });
    all
}

/// How many of the parameters, from the first, decay.
pub fn decaying(config: &ClipConfig) -> usize {
    weights::decaying(&parameters(config))
}

/// Number of scalars, without making them.
pub fn count(config: &ClipConfig) -> u64 {
    weights::count(&all(config))
}

/// Parameters drawn by seed with the deviations that CLIP starts from.
pub fn initial(config: &ClipConfig, seed: u64) -> Result<Parameters> {
    let (text, vision) = (&config.text_config, &config.vision_config);
    let draw = |(index, parameter): (usize, Parameter)| {
        let (width, layers) = match parameter.tower {
            Tower::Text => (text.hidden_size, text.num_hidden_layers),
            Tower::Vision => (vision.hidden_size, vision.num_hidden_layers),
        };
        let (root, narrow) = ((width as f32).powf(-0.5), (2.0 * layers.max(1) as f32).powf(-0.5));
        let deviation = match parameter.role {
            Role::Norm | Role::Bias | Role::Statistics | Role::LogScale => 0.0,
            Role::Tokens | Role::Types => 0.02,
            Role::Positions if parameter.tower == Tower::Text => 0.01,
            // PyTorch's of a convolution.
            Role::Filters => (3.0 * on_tape(&parameter)[1] as f32).powf(-0.5),
            Role::Positions | Role::Class | Role::AttentionOut | Role::Projection => root,
            Role::Query | Role::Key | Role::Value | Role::Down => root * narrow,
            Role::Up => (2.0 * width as f32).powf(-0.5),
        };
        let mut tensor = Tensor::zeros(on_tape(&parameter));
        match parameter.role {
            Role::Norm => tensor.data_mut().fill(1.0),
            Role::LogScale => tensor.data_mut().fill(FIRST_LOG_SCALE),
            Role::Bias => {}
            _ => uniform(tensor.data_mut(), deviation, &mut generator(seed, Purpose::Weights, index as u64)),
        }
        Ok((parameter.name, tensor))
    };
    all(config).into_iter().enumerate().map(draw).collect()
}

/// Reads the parameters of a model's files.
pub fn read(shards: &Shards, config: &ClipConfig) -> Result<Parameters> {
    read_as(shards, config, Alias::same)
}

/// The same of files that keep them elsewhere.
pub(super) fn read_as(shards: &Shards, config: &ClipConfig, alias: fn(&str) -> Alias) -> Result<Parameters> {
    weights::read(all(config), |parameter| {
        let alias = alias(&parameter.name);
        match parameter.role {
            Role::LogScale if !shards.contains(alias.name()) => Tensor::new([1], vec![FIRST_LOG_SCALE]),
            _ => alias.read(shards, &parameter.shape),
        }
    })
}
