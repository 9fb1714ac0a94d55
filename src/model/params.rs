//! Parameters of a configuration: their names, shapes, initial values and files.

use clap::ValueEnum;
use rand::Rng;

use super::config::ModelConfig;
use crate::autograd::Parameters;
use crate::device::Gpu;
use crate::device::cuda::Arithmetic;
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};
use crate::tensor::safetensors::Reader;
use crate::tensor::{Element, Tensor};

/// How a parameter starts.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// Uniform in ±1/√n, as PyTorch's `nn.Linear` does for n inputs.
    Uniform(usize),
    One,
    Zero,
}

/// Name, shape and start of every parameter of a configuration.
#[derive(Default)]
pub struct Plan {
    parameters: Vec<(String, Vec<usize>, Start)>,
    /// Weights that are multiplied with features.
    projections: Vec<String>,
}

impl Plan {
    fn of(config: &ModelConfig) -> Plan {
        let mut plan = Plan::default();
        config.network.parameters(config, &mut plan);
        plan
    }

    /// `name.weight` (outputs, inputs) and `name.bias` (outputs) of a linear layer.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.parameters.push((format!("{name}.weight"), vec![outputs, inputs], Start::Uniform(inputs)));
        self.parameters.push((format!("{name}.bias"), vec![outputs], Start::Uniform(inputs)));
    }

    /// `name.linear` and `name.norm` of a projection of features ([`Project`](crate::ops::Project)).
    pub fn projection(&mut self, name: &str, width: usize, d: usize) {
        self.projections.push(format!("{name}.linear.weight"));
        self.linear(&format!("{name}.linear"), width, d);
        self.norm(&format!("{name}.norm"), d);
    }

    /// `name.weight` and `name.bias` (width) of a layer normalization.
    pub fn norm(&mut self, name: &str, width: usize) {
        self.parameters.push((format!("{name}.weight"), vec![width], Start::One));
        self.parameters.push((format!("{name}.bias"), vec![width], Start::Zero));
    }

    /// `name.hidden` and `name.out` of two linear layers.
    pub fn mlp(&mut self, name: &str, inputs: usize, d: usize) {
        self.linear(&format!("{name}.hidden"), inputs, d);
        self.linear(&format!("{name}.out"), d, d);
    }

    /// `name.query`, `key`, `value`, `out` and `norm` of a cross-attention.
    pub fn attention(&mut self, name: &str, d: usize) {
        for layer in ["query", "key", "value", "out"] {
            self.linear(&format!("{name}.{layer}"), d, d);
        }
        self.norm(&format!("{name}.norm"), d);
    }
}

impl Parameters {
    /// Initial values drawn by seed.
    pub fn random(config: &ModelConfig, seed: u64) -> Parameters {
        let start = |(index, (name, shape, start)): (usize, (String, Vec<usize>, Start))| {
            let mut tensor = Tensor::zeros(shape);
            match start {
                Start::Zero => {}
                Start::One => tensor.data_mut().fill(1.0),
                Start::Uniform(inputs) => {
                    let bound = 1.0 / (inputs as f32).sqrt();
                    let mut rng = generator(seed, Purpose::Weights, index as u64);
                    tensor.data_mut().iter_mut().for_each(|x| *x = rng.random_range(-bound..bound));
                }
            }
            (name, tensor)
        };
        Plan::of(config).parameters.into_iter().enumerate().map(start).collect()
    }

    /// The same in a device's memory, or with `None` in the host's, where a model of this configuration computes with them. On a
    /// device whose arithmetic rounds, weights of projections have a copy in f16 beside them: what is multiplied with stored
    /// features, and what the optimizer writes with the values.
    pub fn placed(&self, config: &ModelConfig, gpu: Option<&Gpu>) -> Result<Parameters> {
        let Some(gpu) = gpu.filter(|gpu| gpu.arithmetic() != Arithmetic::F32) else { return self.to(gpu) };
        let projections = Plan::of(config).projections;
        let place = |(name, tensor): (&str, &Tensor)| {
            let mut placed = tensor.to(Some(gpu))?;
            if tensor.gpu().is_none() && projections.iter().any(|projection| projection == name) {
                let copy = Tensor::upload(gpu, "f16 weights", tensor.data(), tensor.width(), Element::F16)?;
                placed = placed.beside(copy);
            }
            Ok((name.to_string(), placed))
        };
        self.iter().map(place).collect()
    }

    /// Number of scalars of a configuration that was checked, without making them.
    pub fn count_of(config: &ModelConfig) -> u64 {
        Plan::of(config).parameters.iter().map(|(_, shape, _)| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }

    /// Reads every parameter of `config` from a file and lists all that are missing, misshapen or unknown at once.
    pub fn read(reader: &Reader, config: &ModelConfig) -> Result<Parameters> {
        Parameters::read_prefixed(reader, config, "")
    }

    /// The same where `prefix` stands before each name; tensors without it are none of this reader's business.
    pub fn read_prefixed(reader: &Reader, config: &ModelConfig, prefix: &str) -> Result<Parameters> {
        let plan = Plan::of(config).parameters;
        let mut wrong = Vec::new();
        for (name, shape, _) in &plan {
            match reader.shape(&format!("{prefix}{name}")) {
                Err(_) => wrong.push(format!("`{name}` {shape:?} is missing")),
                Ok(found) if found != shape => wrong.push(format!("`{name}` has shape {found:?}, needs {shape:?}")),
                Ok(_) => {}
            }
        }
        let known = |name: &str| plan.iter().any(|(n, _, _)| n == name);
        let unknown = reader.names().filter_map(|n| n.strip_prefix(prefix)).filter(|n| !known(n));
        wrong.extend(unknown.map(|name| format!("`{name}` is not a parameter of this configuration")));
        if !wrong.is_empty() {
            let reason = format!(
                "does not fit the configuration (model {}, d {}, heads {}, ablation {}, modalities {}): {}",
                config.network,
                config.d,
                config.heads,
                named(&config.ablation),
                named(&config.modalities),
                wrong.join("; ")
            );
            return Err(Error::file(reader.path(), reason));
        }
        let tensor = |(name, shape, _): (String, Vec<usize>, Start)| {
            let tensor = reader.tensor_of(&format!("{prefix}{name}"), &shape)?;
            Ok((name, tensor))
        };
        plan.into_iter().map(tensor).collect()
    }
}

/// A choice as configurations and flags write it.
fn named(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
}
