//! Parameters by name, and their places on a tape.

use std::collections::HashMap;

use super::{Early, Gradients, Tape, Var};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::safetensors::Writer;

/// All parameters of a model, in a fixed order.
#[derive(Clone, Debug)]
pub struct Parameters {
    names: Vec<String>,
    tensors: Vec<Tensor>,
}

impl FromIterator<(String, Tensor)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(named: I) -> Parameters {
        let (names, tensors) = named.into_iter().unzip();
        Parameters { names, tensors }
    }
}

impl Parameters {
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

    /// Those whose names begin with `prefix` and a dot, by the rest of their names.
    pub fn within(&self, prefix: &str) -> Parameters {
        let rest = |(name, tensor): (&str, &Tensor)| Some((rest_of(name, prefix)?.to_string(), tensor.clone()));
        self.iter().filter_map(rest).collect()
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

    /// The same of parameters that are some of those on the tape; `None` where the loss does not reach one.
    pub fn gradients_among(&self, vars: &Variables, grads: &mut Gradients) -> Result<Vec<Option<Tensor>>> {
        self.names.iter().map(|name| Ok(grads.take(vars.get(name)?))).collect()
    }
}

/// What of a name follows `prefix` and a dot, if it begins so.
fn rest_of<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)?.strip_prefix('.')
}

/// Parameters on a tape, by name.
pub struct Variables {
    index: HashMap<String, usize>,
    vars: Vec<Var>,
}

impl FromIterator<(String, Var)> for Variables {
    /// A name that comes again stands for what came last.
    fn from_iter<I: IntoIterator<Item = (String, Var)>>(named: I) -> Variables {
        let (names, vars): (Vec<String>, Vec<Var>) = named.into_iter().unzip();
        Variables { index: names.into_iter().enumerate().map(|(i, name)| (name, i)).collect(), vars }
    }
}

impl Variables {
    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Result<&Var> {
        let index = self.index.get(name);
        index.map(|&i| &self.vars[i]).ok_or_else(|| Error::invalid(format!("the model has no parameter `{name}`")))
    }

    /// Parameters whose names begin with `prefix` and a dot, in the order of their names.
    pub fn under(&self, prefix: &str) -> Vec<(String, &Var)> {
        let found = self.index.iter().filter(|(name, _)| rest_of(name, prefix).is_some());
        let mut found: Vec<(String, &Var)> = found.map(|(name, &i)| (name.clone(), &self.vars[i])).collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    /// The same by the rest of their names.
    pub fn within(&self, prefix: &str) -> Variables {
        let rest = |(name, &i): (&String, &usize)| Some((rest_of(name, prefix)?.to_string(), self.vars[i].clone()));
        self.index.iter().filter_map(rest).collect()
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
