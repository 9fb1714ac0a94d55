//! Parameters by name: their shapes, initial values, files, and their places on a tape.

use std::collections::HashMap;

use rand::Rng;

use super::config::ModelConfig;
use crate::autograd::{Early, Gradients, Tape, Var};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};
use crate::tensor::Tensor;
use crate::tensor::safetensors::{Reader, Writer};

/// How a parameter starts.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// Uniform in ±1/√n, as PyTorch's `nn.Linear` does for n inputs.
    Uniform(usize),
    One,
    Zero,
}

/// Name, shape and start of every parameter of a configuration.
pub struct Plan(Vec<(String, Vec<usize>, Start)>);

impl Plan {
    fn of(config: &ModelConfig) -> Plan {
        let mut plan = Plan(Vec::new());
        config.network.parameters(config, &mut plan);
        plan
    }

    /// `name.weight` (outputs, inputs) and `name.bias` (outputs) of a linear layer.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.0.push((format!("{name}.weight"), vec![outputs, inputs], Start::Uniform(inputs)));
        self.0.push((format!("{name}.bias"), vec![outputs], Start::Uniform(inputs)));
    }

    /// `name.weight` and `name.bias` (width) of a layer normalization.
    pub fn norm(&mut self, name: &str, width: usize) {
        self.0.push((format!("{name}.weight"), vec![width], Start::One));
        self.0.push((format!("{name}.bias"), vec![width], Start::Zero));
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

/// All parameters of a model, in a fixed order.
#[derive(Clone, Debug)]
pub struct Parameters {
    names: Vec<String>,
    tensors: Vec<Tensor>,
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
        let (names, tensors) = Plan::of(config).0.into_iter().enumerate().map(start).unzip();
        Parameters { names, tensors }
    }

    /// Number of scalars of a configuration that was checked, without making them.
    pub fn count_of(config: &ModelConfig) -> u64 {
        Plan::of(config).0.iter().map(|(_, shape, _)| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }

    /// Reads every parameter of `config` from a file and lists all that are missing, misshapen or unknown at once.
    pub fn read(reader: &Reader, config: &ModelConfig) -> Result<Parameters> {
        Parameters::read_prefixed(reader, config, "")
    }

    /// The same where `prefix` stands before each name; tensors without it are none of this reader's business.
    pub fn read_prefixed(reader: &Reader, config: &ModelConfig, prefix: &str) -> Result<Parameters> {
        let plan = Plan::of(config).0;
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
                "does not fit the configuration (model {}, d {}, heads {}, ablation {:?}, modalities {:?}): {}",
                config.network,
                config.d,
                config.heads,
                config.ablation,
                config.modalities,
                wrong.join("; ")
            );
            return Err(Error::file(reader.path(), reason));
        }
        let tensors = plan.iter().map(|(n, shape, _)| reader.tensor_of(&format!("{prefix}{n}"), shape));
        let tensors = tensors.collect::<Result<_>>()?;
        Ok(Parameters { names: plan.into_iter().map(|(name, _, _)| name).collect(), tensors })
    }

    /// Name of the first parameter with a value that is NaN or infinite, if there is one. They lie on the host.
    pub fn not_finite(&self) -> Option<&str> {
        self.iter().find(|(_, tensor)| !tensor.all_finite()).map(|(name, _)| name)
    }

    /// Adds every parameter to a file, with `prefix` before its name.
    pub fn write<'a>(&'a self, writer: &mut Writer<'a>, prefix: &str) {
        for (name, tensor) in self.iter() {
            writer.tensor(format!("{prefix}{name}"), tensor);
        }
    }

    /// Name and value of each parameter, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.iter().map(String::as_str).zip(&self.tensors)
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        let found = self.names.iter().position(|n| n == name);
        found.map(|i| &self.tensors[i]).ok_or_else(|| Error::invalid(format!("the model has no parameter `{name}`")))
    }

    /// The same in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<Parameters> {
        let tensors = self.tensors.iter().map(|t| t.to(gpu)).collect::<Result<_>>()?;
        Ok(Parameters { names: self.names.clone(), tensors })
    }

    /// Values in order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Values in order, for the optimizer.
    pub fn tensors_mut(&mut self) -> &mut [Tensor] {
        &mut self.tensors
    }

    /// Number of scalars.
    pub fn count(&self) -> usize {
        self.tensors.iter().map(Tensor::len).sum()
    }

    /// Whether there is nothing to train.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Puts every parameter on a tape.
    pub fn bind(&self, tape: &Tape) -> Variables {
        let vars: Vec<Var> = self.tensors.iter().map(|t| tape.leaf(t.clone())).collect();
        let index = self.names.iter().enumerate().map(|(i, name)| (name.clone(), i)).collect();
        Variables { index, vars }
    }

    /// Those that have their value already, each with its parameter's number.
    pub fn early(&self, vars: &Variables, early: &Early) -> Vec<(usize, Tensor)> {
        let there = vars.vars.iter().enumerate().filter_map(|(i, var)| Some((i, early.get(var)?.clone())));
        there.collect()
    }

    /// The gradients in the parameters' order. A parameter that the loss does not reach is an error.
    pub fn gradients(&self, vars: Variables, mut grads: Gradients) -> Result<Vec<Tensor>> {
        let taken = vars.vars.iter().zip(&self.names).map(|(var, name)| {
            grads.take(var).ok_or_else(|| Error::invalid(format!("no gradient reached parameter `{name}`")))
        });
        taken.collect()
    }
}

/// Parameters on a tape, by name.
pub struct Variables {
    index: HashMap<String, usize>,
    vars: Vec<Var>,
}

impl Variables {
    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Result<&Var> {
        let index = self.index.get(name);
        index.map(|&i| &self.vars[i]).ok_or_else(|| Error::invalid(format!("the model has no parameter `{name}`")))
    }

    /// Parameters `prefix.suffix` for each suffix.
    pub fn group<const N: usize>(&self, prefix: &str, suffixes: [&str; N]) -> Result<[&Var; N]> {
        let mut found = [None; N];
        for (slot, suffix) in found.iter_mut().zip(suffixes) {
            *slot = Some(self.get(&format!("{prefix}.{suffix}"))?);
        }
        // Every slot was filled above.
        Ok(found.map(|slot| slot.unwrap_or(&self.vars[0])))
    }
}
