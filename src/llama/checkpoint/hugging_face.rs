//! Weights of a Hugging Face directory: one safetensors file or shards with an index, checked against the configuration
//! before any of them is read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Stored;
use crate::error::{Error, Result};
use crate::llama::{LlamaConfig, layout};
use crate::tensor::safetensors::{Reader, first_unbounded};
use crate::tensor::{Bits, DType, Matrix, Precision, Shards, Tensor, Values, float_precision};

/// Missing tensors that are counted, of one that a model lacks.
const MOST_MISSING: usize = 10_000;

/// The opened files.
pub struct HuggingFace {
    folder: PathBuf,
    config: LlamaConfig,
    shards: Shards,
}

impl HuggingFace {
    /// Opens a directory and verifies names, shapes, types and shards.
    pub fn open(folder: &Path, config: &LlamaConfig) -> Result<HuggingFace> {
        let shards = Shards::open(folder)?;
        let files = HuggingFace { folder: folder.to_path_buf(), config: config.clone(), shards };
        files.verify()?;
        Ok(files)
    }

    /// Names and shapes of everything the decoder reads, without reading any of it.
    fn verify(&self) -> Result<()> {
        let mut known = BTreeSet::new();
        let mut missing = Vec::new();
        for layer in layout::matrices(&self.config) {
            // A number of layers may be absurd: what is missing after so much is not counted.
            if missing.len() > MOST_MISSING {
                return Err(self.lacks(&missing));
            }
            let name = format!("{layer}.weight");
            match self.shards.reader(&name) {
                Ok(reader) => self.verify_matrix(reader, &layer, &name)?,
                Err(_) => missing.push(name.clone()),
            }
            known.insert(layout::scale_name(&layer));
            known.insert(name);
        }
        for layer in layout::vectors(&self.config) {
            let name = layout::tensor(&layer);
            match self.shards.reader(&name) {
                Ok(reader) => {
                    let (found, needed) = (reader.shape(&name)?, [layout::vector_len(&self.config, &layer)]);
                    if found != needed {
                        return Err(reader.error(&name, format!("has shape {found:?}, config.json says {needed:?}")));
                    }
                    if float_precision(reader.dtype(&name)?).is_none() {
                        return Err(reader.error(&name, "is no float"));
                    }
                }
                Err(_) => missing.push(name.clone()),
            }
            known.insert(name);
        }
        if !missing.is_empty() {
            return Err(self.lacks(&missing));
        }
        // Files of old carry the rotary frequencies, and some tied models their last layer.
        let ignored = |name: &str| name.ends_with(".rotary_emb.inv_freq") || name == "lm_head.weight";
        let unknown = self.shards.names().find(|name| !known.contains(*name) && !ignored(name));
        match unknown {
            None => Ok(()),
            Some(name) => {
                let reason = "is no tensor of a Llama as config.json describes it; the decoder would leave it out";
                Err(Error::tensor(&self.folder, name, reason))
            }
        }
    }

    fn lacks(&self, missing: &[String]) -> Error {
        let others = match missing.len() - 1 {
            0 => String::new(),
            more if more < MOST_MISSING => format!(" (and {more} more tensors)"),
            _ => format!(" (and more than {MOST_MISSING} more tensors)"),
        };
        let reason = format!("is missing{others}; is the download complete, and is config.json this model's?");
        Error::tensor(&self.folder, missing.first().map_or("", String::as_str), reason)
    }

    fn verify_matrix(&self, reader: &Reader, layer: &str, name: &str) -> Result<()> {
        let Some([rows, columns]) = layout::matrix_shape(&self.config, layer) else { return Ok(()) };
        let (found, dtype) = (reader.shape(name)?, reader.dtype(name)?);
        if float_precision(dtype).is_some() {
            return match found == [rows, columns] {
                true => Ok(()),
                false => {
                    Err(reader.error(name, format!("has shape {found:?}, config.json says {:?}", [rows, columns])))
                }
            };
        }
        if dtype != DType::U8 || self.config.quantized.is_none() {
            return Err(reader.error(name, format!("is {dtype}; weights are F32, F16 or BF16")));
        }
        if found != [rows, columns] && found != [rows, columns / 2] {
            return Err(reader.error(name, format!("has shape {found:?}, config.json says {:?}", [rows, columns])));
        }
        let scales = layout::scale_name(layer);
        let holder = self.shards.reader(&scales)?;
        match (holder.dtype(&scales)?, holder.shape(&scales)?) {
            (DType::BF16, &[r, groups]) if r == rows && (groups * 64 == columns || groups * 128 == columns) => Ok(()),
            (dtype, shape) => {
                let needed = format!("needs BF16 [{rows}, {}] or [{rows}, {}]", columns / 64, columns / 128);
                Err(holder.error(&scales, format!("is {dtype} {shape:?}, {needed}")))
            }
        }
    }
}

impl Stored for HuggingFace {
    fn precision(&self, layer: &str) -> Result<Precision> {
        let name = format!("{layer}.weight");
        let reader = self.shards.reader(&name)?;
        if let Some(precision) = float_precision(reader.dtype(&name)?) {
            return Ok(precision);
        }
        let whole = layout::matrix_shape(&self.config, layer)
            .is_some_and(|shape| reader.shape(&name).is_ok_and(|s| s == shape));
        Ok(if whole { Precision::Int8 } else { Precision::Int4 })
    }

    fn matrix(&self, layer: &str) -> Result<Matrix> {
        let name = format!("{layer}.weight");
        let reader = self.shards.reader(&name)?;
        let shape =
            layout::matrix_shape(&self.config, layer).ok_or_else(|| reader.error(&name, "is no matrix of a Llama"))?;
        let [rows, columns] = shape;
        let values = match reader.dtype(&name)? {
            DType::F32 => Values::F32(reader.mapped(&name)?),
            DType::F16 => Values::F16(reader.mapped(&name)?),
            DType::BF16 => Values::Bf16(reader.mapped(&name)?),
            _ => {
                let scales = layout::scale_name(layer);
                let bits = if reader.shape(&name)? == [rows, columns] { Bits::Eight } else { Bits::Four };
                Values::Quantized {
                    bits,
                    codes: reader.mapped(&name)?,
                    scales: self.shards.reader(&scales)?.mapped(&scales)?,
                }
            }
        };
        let unbounded = match &values {
            Values::F32(v) => first_unbounded(v),
            Values::F16(v) => first_unbounded(v),
            Values::Bf16(v) => first_unbounded(v),
            Values::Quantized { scales, .. } => first_unbounded(scales),
            Values::Blocks { .. } => None,
        };
        reader.expect_finite(&name, unbounded)?;
        Matrix::new(rows, columns, values)
    }

    fn vector(&self, layer: &str) -> Result<Tensor> {
        let name = layout::tensor(layer);
        self.shards.reader(&name)?.tensor_of(&name, &[layout::vector_len(&self.config, layer)])
    }

    fn error(&self, layer: &str, reason: String) -> Error {
        let name = format!("{layer}.weight");
        match self.shards.reader(&name) {
            Ok(reader) => reader.error(&name, reason),
            Err(missing) => missing,
        }
    }
}
