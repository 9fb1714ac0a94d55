//! Weights as they are trained, and how files hold them.

use std::collections::BTreeMap;
use std::path::Path;

use half::bf16;
use half::vec::HalfFloatVecExt;

use super::kept::Kept;
use super::parameter::{Parameter, Role};
use crate::autograd::Parameters;
use crate::encoder::loader::{Alias, Part};
use crate::error::Result;
use crate::tensor::safetensors::Writer;
use crate::tensor::{Precision, Tensor};

/// Whether weight decay applies: not to gains, biases, single vectors, statistics and the scale, as CLIP has it.
pub(in crate::encoder) fn decays(parameter: &Parameter) -> bool {
    !matches!(parameter.role, Role::Norm | Role::Bias | Role::Class | Role::Statistics | Role::LogScale)
}

/// The same with those that decay first, each kind in its order.
pub(in crate::encoder) fn ordered(mut parameters: Vec<Parameter>) -> Vec<Parameter> {
    parameters.sort_by_key(|parameter| !decays(parameter));
    parameters
}

/// How many of the parameters decay.
pub fn decaying(parameters: &[Parameter]) -> usize {
    parameters.iter().filter(|parameter| decays(parameter)).count()
}

/// Number of scalars, without making them.
pub fn count(parameters: &[Parameter]) -> u64 {
    parameters.iter().map(Parameter::count).sum()
}

/// The shape that operations take: filters are rows of pixels, the class is a layer of one input, the query that pools a row, and
/// the scale a vector.
pub(in crate::encoder) fn on_tape(parameter: &Parameter) -> Vec<usize> {
    match (parameter.role, &parameter.shape[..]) {
        (Role::Filters, [outputs, rest @ ..]) => vec![*outputs, rest.iter().product()],
        (Role::Class, [width]) => vec![*width, 1],
        (Role::Class, [1, 1, width]) => vec![1, *width],
        (Role::LogScale, _) => vec![1],
        (_, shape) => shape.to_vec(),
    }
}

/// The values that `tensor` finds for parameters, in their shapes on a tape.
pub(in crate::encoder) fn read(
    parameters: Vec<Parameter>,
    tensor: impl Fn(&Parameter) -> Result<Tensor>,
) -> Result<Parameters> {
    let read = |parameter: Parameter| {
        let values = tensor(&parameter)?.data().to_vec();
        Ok((parameter.name.clone(), Tensor::new(on_tape(&parameter), values)?))
    };
    parameters.into_iter().map(read).collect()
}

/// Weights, which lie on the host, under the names and in the shapes of a file of another kind: what `alias` finds there.
pub(in crate::encoder) fn renamed(
    weights: &Parameters,
    parameters: &[Parameter],
    alias: fn(&str) -> Alias,
) -> Result<(Parameters, Vec<Parameter>)> {
    let mut parts: BTreeMap<String, Vec<(Part, &Parameter)>> = BTreeMap::new();
    for parameter in parameters {
        let alias = alias(&parameter.name);
        parts.entry(alias.name().into()).or_default().push((alias.part(), parameter));
    }
    let mut all = Vec::new();
    let mut shaped = Vec::new();
    for (name, mut parts) in parts {
        parts.sort_by_key(|(part, _)| *part);
        let (mut values, mut shape) = (Vec::new(), parts[0].1.shape.clone());
        for (part, parameter) in &parts {
            let part_values = weights.get(&parameter.name)?.data();
            match (part, &parameter.shape[..]) {
                (Part::Transposed, &[rows, columns]) => {
                    values.extend((0..rows * columns).map(|i| part_values[i % rows * columns + i / rows]));
                    shape = vec![columns, rows];
                }
                _ => values.extend_from_slice(part_values),
            }
        }
        if let (Part::Third(_), Some(rows)) = (parts[0].0, shape.first_mut()) {
            *rows *= parts.len();
        }
        all.push((name.clone(), Tensor::new(&[values.len()][..], values)?));
        shaped.push(Parameter { name, shape, ..parts[0].1.clone() });
    }
    Ok((all.into_iter().collect(), shaped))
}

/// Writes them as a file that Hugging Face's libraries and this program's encoders read, in f32 or rounded to bf16, beside what is
/// kept as it was. They lie on the host.
pub(in crate::encoder) fn write(
    weights: &Parameters,
    parameters: &[Parameter],
    kept: &Kept,
    precision: Precision,
    path: &Path,
) -> Result<()> {
    let narrow = |parameter: &Parameter| {
        let values = weights.get(&parameter.name)?.data();
        Ok((precision == Precision::Bf16).then(|| Vec::<bf16>::from_f32_slice(values)))
    };
    let narrow = parameters.iter().map(narrow).collect::<Result<Vec<_>>>()?;
    let mut writer = Writer::default();
    for (Parameter { name, shape, .. }, narrow) in parameters.iter().zip(&narrow) {
        match narrow {
            Some(values) => writer.add(name, shape, values),
            None => writer.add(name, shape, weights.get(name)?.data()),
        };
    }
    kept.add_to(&mut writer);
    writer.as_pytorch().write(path)
}
