//! ResNet's weights as they are trained, and how files hold them.
//!
//! Batch normalizations are as of PyTorch's `eval()`: their weights and biases are trained, their statistics stay as they are.

use super::config::{Block, ResNetConfig};
use super::{EMBEDDER, EPS};
use crate::autograd::Parameters;
use crate::encoder::trained::{Depth, List, Parameter, Role, Tower, weights};
use crate::error::Result;
use crate::ops::convolution::{Filters, channels_first, channels_last};
use crate::tensor::{Shards, Tensor};

/// The last part of a variance's name.
const VARIANCE: &str = "normalization.running_var";

/// All parameters and statistics, those that decay first, of a file whose names begin with `prefix`.
pub fn all(config: &ResNetConfig, prefix: &str) -> Vec<Parameter> {
    let mut list = List::of(Tower::Vision);
    normalized(&mut list, &format!("{prefix}{EMBEDDER}"), config.first());
    for (index, Block { name, shortcut, parts }) in config.blocks().enumerate() {
        list.depth = Depth::Block(index);
        if let Some(filters) = shortcut {
            normalized(&mut list, &format!("{prefix}{name}.shortcut"), filters);
        }
        for (i, filters) in parts.into_iter().enumerate() {
            normalized(&mut list, &format!("{prefix}{name}.layer.{i}"), filters);
        }
    }
    weights::ordered(list.parameters)
}

fn normalized(list: &mut List, name: &str, Filters { outputs, inputs, kernel, .. }: Filters) {
    list.add(format!("{name}.convolution.weight"), &[outputs, inputs, kernel, kernel], Role::Filters);
    list.norm(&format!("{name}.normalization"), outputs);
    list.add(format!("{name}.normalization.running_mean"), &[outputs], Role::Statistics);
    list.add(format!("{name}.{VARIANCE}"), &[outputs], Role::Statistics);
}

/// What `turn` makes of a filter's channels and pixels, whose sizes are those of the parameter.
fn turned(parameter: &Parameter, values: &[f32], turn: impl Fn(&[f32], (usize, usize)) -> Vec<f32>) -> Vec<f32> {
    match parameter.shape[..] {
        [_, inputs, height, width] => turn(values, (inputs, height * width)),
        _ => values.to_vec(),
    }
}

/// Reads the parameters of a model's files as a tape takes them: filters with the channels of a pixel together, and in the place of
/// a variance what the normalization multiplies by, 1 / sqrt(variance + eps).
pub fn read(shards: &Shards, config: &ResNetConfig, prefix: &str) -> Result<Parameters> {
    weights::read(all(config, prefix), |parameter| {
        let mut tensor = shards.tensor_of(&parameter.name, &parameter.shape)?;
        if parameter.name.ends_with(VARIANCE) {
            tensor.data_mut().iter_mut().for_each(|x| *x = 1.0 / (*x + EPS).sqrt());
        }
        let values = turned(parameter, tensor.data(), |values, sizes| channels_last(values, sizes, sizes.0));
        Tensor::new(parameter.shape.clone(), values)
    })
}

/// Those that may be trained, as files hold them, and their list. They lie on the host.
pub(super) fn as_stored(all: Vec<Parameter>, weights: &Parameters) -> Result<(Parameters, Vec<Parameter>)> {
    let trained: Vec<Parameter> = all.into_iter().filter(|parameter| parameter.role != Role::Statistics).collect();
    let stored = |parameter: &Parameter| {
        let values = turned(parameter, weights.get(&parameter.name)?.data(), channels_first);
        Ok((parameter.name.clone(), Tensor::new(parameter.shape.clone(), values)?))
    };
    Ok((trained.iter().map(stored).collect::<Result<_>>()?, trained))
}
