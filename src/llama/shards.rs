//! Writing a model's tensors: one safetensors file, or shards with an index where one would be large.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::error::{Error, Result};
use crate::files;
use crate::tensor::safetensors::Writer;
use crate::tensor::{INDEX, SINGLE, Values};

/// Bytes of a shard: as much as is kept in memory at a time.
const SHARD: u64 = 2_000_000_000;

/// A tensor as it is to be written.
pub(super) struct Stored {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// A layer whose tensors are made when their shard is written.
pub(super) struct Planned {
    pub layer: String,
    pub bytes: u64,
}

/// Writes the tensors that `make` gives for each layer, if the disk has room for all of them.
pub(super) fn write(folder: &Path, layers: &[Planned], make: impl Fn(&str) -> Result<Vec<Stored>>) -> Result<()> {
    let mut shards: Vec<(u64, Vec<&str>)> = Vec::new();
    for planned in layers {
        match shards.last_mut() {
            Some((bytes, names)) if bytes.saturating_add(planned.bytes) <= SHARD => {
                *bytes += planned.bytes;
                names.push(&planned.layer);
            }
            _ => shards.push((planned.bytes, vec![&planned.layer])),
        }
    }
    let total = shards.iter().fold(0u64, |total, (bytes, _)| total.saturating_add(*bytes));
    files::expect_room_for(folder, total)?;
    if let [(_, layers)] = &shards[..] {
        return write_shard(&folder.join(SINGLE), layers, &make).map(|_| ());
    }
    let mut places = BTreeMap::new();
    for (i, (_, layers)) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        for tensor in write_shard(&folder.join(&name), layers, &make)? {
            places.insert(tensor, name.clone());
        }
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": places});
    files::write_whole(&folder.join(INDEX), |out| writeln!(out, "{index:#}"))
}

/// Writes one file; returns the names of its tensors.
fn write_shard(path: &Path, layers: &[&str], make: &impl Fn(&str) -> Result<Vec<Stored>>) -> Result<Vec<String>> {
    let mut tensors = Vec::new();
    for layer in layers {
        tensors.extend(make(layer)?);
    }
    let mut writer = Writer::default();
    for Stored { name, shape, values } in &tensors {
        match values {
            Values::F32(v) => writer.add(name, shape, v),
            Values::F16(v) => writer.add(name, shape, v),
            Values::Bf16(v) => writer.add(name, shape, v),
            Values::Quantized { bits, codes, scales } => {
                let (rows, columns) = (shape[0], shape[1]);
                writer.add(name, &[rows, bits.bytes(columns)], codes);
                writer.add(format!("{name}_scale"), &[rows, scales.len() / rows], scales)
            }
            Values::Blocks { kind, .. } => {
                let reason = format!("{kind} has no place in safetensors; convert to f32, f16 or bf16");
                return Err(Error::tensor(path, name, reason));
            }
        };
    }
    writer.write(path)?;
    let with_scales = tensors.iter().flat_map(|t| {
        let scales = matches!(t.values, Values::Quantized { .. }).then(|| format!("{}_scale", t.name));
        [Some(t.name.clone()), scales].into_iter().flatten()
    });
    Ok(with_scales.collect())
}
