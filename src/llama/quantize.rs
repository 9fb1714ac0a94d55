//! Packing a model's weights once, into a directory that opens again without conversion.

use std::path::Path;

use serde_json::json;

use super::config::QUANT_METHOD;
use super::shards::{self, Planned, Stored};
use super::{Checkpoint, Source, layout};
use crate::error::{Error, Result};
use crate::fields::read_json;
use crate::files;
use crate::tensor::{Precision, Values};

/// Files beside the weights that a model is opened with.
const BESIDE: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// Writes the model of `folder` to `out`, whole or not at all, with its matrices in int8 or int4. `on_layer` hears of each layer (done, all).
///
/// A matrix `<layer>.weight` (outputs, inputs) becomes U8 codes (outputs, inputs · bits / 8) and `<layer>.weight_scale`
/// BF16 (outputs, groups), laid out as [`crate::tensor::quantized`] says. With int4 the last layer is int8; an embedding
/// that is not the last layer too stays as it is. `config.json` says so in `quantization_config`.
pub fn quantize(folder: &Path, out: &Path, precision: Precision, on_layer: impl Fn(usize, usize) + Sync) -> Result<()> {
    let Some(bits) = precision.bits() else {
        return Err(Error::invalid(format!("{precision} is no quantized precision; int8 and int4 are")));
    };
    let checkpoint = Checkpoint::open(&Source::Folder(folder.to_path_buf()), Some(precision))?;
    if checkpoint.config().quantized.is_some() {
        return Err(Error::file(folder, "is quantized already"));
    }
    files::write_folder_whole(out, |out| write_files(&checkpoint, folder, out, bits.count(), on_layer))
}

/// Writes all tensors of a model in the checkpoint's precision. `on_layer` hears of each layer (done, all).
pub(super) fn write_weights(checkpoint: &Checkpoint, out: &Path, on_layer: impl Fn(usize, usize) + Sync) -> Result<()> {
    let config = checkpoint.config();
    let matrices: Vec<String> = layout::matrices(config).collect();
    let mut planned = Vec::with_capacity(matrices.len());
    for layer in matrices {
        planned.push(Planned { bytes: checkpoint.matrix_bytes(&layer)?, layer });
    }
    let vector = |layer: String| Planned { bytes: 4 * layout::vector_len(config, &layer) as u64, layer };
    planned.extend(layout::vectors(config).map(vector));
    shards::write(out, &planned, |layer| {
        let name = layout::tensor(layer);
        let stored = match layout::matrix_shape(config, layer) {
            Some(shape) => Stored { name, shape: shape.to_vec(), values: checkpoint.matrix(layer)?.values().clone() },
            None => {
                let values = checkpoint.vector(layer)?.data().to_vec();
                Stored { name, shape: vec![values.len()], values: Values::F32(values.into()) }
            }
        };
        on_layer(planned.iter().position(|p| p.layer == layer).map_or(0, |i| i + 1), planned.len());
        Ok(vec![stored])
    })
}

fn write_files(
    checkpoint: &Checkpoint,
    folder: &Path,
    out: &Path,
    bits: usize,
    on_layer: impl Fn(usize, usize) + Sync,
) -> Result<()> {
    write_weights(checkpoint, out, on_layer)?;
    for name in BESIDE {
        let from = folder.join(name);
        if from.exists() {
            let bytes = files::read(&from)?;
            files::write_new(&out.join(name), &bytes)?;
        }
    }
    let path = folder.join("config.json");
    let mut config = read_json(&path)?;
    config["quantization_config"] = json!({"quant_method": QUANT_METHOD, "bits": bits});
    files::write_whole(&out.join("config.json"), |file| writeln!(file, "{config:#}"))
}
