//! The towers' weights as they are trained: how they start, and how files hold them.

use std::path::Path;

use half::bf16;
use half::vec::HalfFloatVecExt;

use super::config::ClipConfig;
use super::parameters::{Parameter, Role, Tower, parameters};
use super::random::uniform;
use crate::autograd::Parameters;
use crate::error::Result;
use crate::random::{Purpose, generator};
use crate::tensor::safetensors::Writer;
use crate::tensor::{Precision, Shards, Tensor};

/// Logarithm of what cosines are multiplied by.
pub const LOG_SCALE: &str = "logit_scale";

/// Where it starts: ln(1 / 0.07), as CLIP's.
const FIRST_LOG_SCALE: f32 = 2.659_26;

/// Whether weight decay applies: not to gains, biases and single vectors, as CLIP has it.
pub(super) fn decays(parameter: &Parameter) -> bool {
    !matches!(parameter.role, Role::Norm | Role::Bias | Role::Class)
}

/// All parameters but for the scale: those that decay first.
pub(super) fn ordered(config: &ClipConfig) -> Vec<Parameter> {
    let mut ordered = parameters(config);
    ordered.sort_by_key(|parameter| !decays(parameter));
    ordered
}

/// How many of the parameters, from the first, decay.
pub fn decaying(config: &ClipConfig) -> usize {
    parameters(config).iter().filter(|parameter| decays(parameter)).count()
}

/// Number of scalars, without making them.
pub fn count(config: &ClipConfig) -> u64 {
    let (text, vision) = config.parameters();
    text + vision + 1
}

/// The shape that operations take: filters are rows of pixels, and the class is a layer of one input.
fn on_tape(parameter: &Parameter) -> Vec<usize> {
    match (parameter.role, &parameter.shape[..]) {
        (Role::Filters, [outputs, rest @ ..]) => vec![*outputs, rest.iter().product()],
        (Role::Class, [width]) => vec![*width, 1],
        (_, shape) => shape.to_vec(),
    }
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
            Role::Norm | Role::Bias => 0.0,
            Role::Tokens => 0.02,
            Role::Positions if parameter.tower == Tower::Text => 0.01,
            // PyTorch's of a convolution.
            Role::Filters => (3.0 * on_tape(&parameter)[1] as f32).powf(-0.5),
            Role::Positions | Role::Class | Role::AttentionOut | Role::Projection => root,
            Role::Attention | Role::Down => root * narrow,
            Role::Up => (2.0 * width as f32).powf(-0.5),
        };
        let mut tensor = Tensor::zeros(on_tape(&parameter));
        match parameter.role {
            Role::Norm => tensor.data_mut().fill(1.0),
            Role::Bias => {}
            _ => uniform(tensor.data_mut(), deviation, &mut generator(seed, Purpose::Weights, index as u64)),
        }
        (parameter.name, tensor)
    };
    let scale = (LOG_SCALE.to_string(), Tensor::new([1], vec![FIRST_LOG_SCALE])?);
    Ok(ordered(config).into_iter().enumerate().map(draw).chain([scale]).collect())
}

/// Reads the parameters of a model's files.
pub fn read(shards: &Shards, config: &ClipConfig) -> Result<Parameters> {
    let tensor = |parameter: Parameter| {
        let tensor = shards.tensor_of(&parameter.name, &parameter.shape)?;
        Ok((parameter.name.clone(), Tensor::new(on_tape(&parameter), tensor.data().to_vec())?))
    };
    let scale = match shards.contains(LOG_SCALE) {
        true => shards.tensor_of(LOG_SCALE, &[])?.data().to_vec(),
        false => vec![FIRST_LOG_SCALE],
    };
    let scale = Tensor::new([1], scale).map(|scale| (LOG_SCALE.to_string(), scale));
    ordered(config).into_iter().map(tensor).chain([scale]).collect()
}

/// Writes them as a file that Hugging Face's libraries and this program's encoders read, in f32 or rounded to bf16. They
/// lie on the host.
pub fn write(parameters: &Parameters, config: &ClipConfig, precision: Precision, path: &Path) -> Result<()> {
    let mut shapes: Vec<(String, Vec<usize>)> = ordered(config).into_iter().map(|p| (p.name, p.shape)).collect();
    shapes.push((LOG_SCALE.to_string(), Vec::new()));
    let narrow = |(name, _): &(String, Vec<usize>)| {
        let values = parameters.get(name)?.data();
        Ok((precision == Precision::Bf16).then(|| Vec::<bf16>::from_f32_slice(values)))
    };
    let narrow = shapes.iter().map(narrow).collect::<Result<Vec<_>>>()?;
    let mut writer = Writer::default();
    for ((name, shape), narrow) in shapes.iter().zip(&narrow) {
        match narrow {
            Some(values) => writer.add(name, shape, values),
            None => writer.add(name, shape, parameters.get(name)?.data()),
        };
    }
    writer.as_pytorch().write(path)
}
