//! Weights of a Hugging Face directory: one safetensors file or shards with an index, checked against the configuration
//! before any of them is read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{LlamaConfig, layout};
use crate::bytes::Bytes;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::safetensors::{Reader, first_unbounded};
use crate::tensor::{Bits, DType, Precision, Shards, Tensor, Values, Weight, float_precision};

/// Missing tensors that are counted, of one that a model lacks.
const MOST_MISSING: usize = 10_000;

/// The opened files of a model. Matrices are read when asked for: mapped where they have the wanted precision already,
/// else converted.
pub struct Checkpoint {
    folder: PathBuf,
    config: LlamaConfig,
    shards: Shards,
    precision: Precision,
}

impl Checkpoint {
    /// Opens a directory and verifies names, shapes, types and shards. Weights are converted to `precision` as they are
    /// read; without one they stay as the files have them.
    ///
    /// Fails if a shard or a tensor is missing, has another shape than `config.json` says, or if quantized files are
    /// asked for in another precision.
    pub fn open(folder: &Path, precision: Option<Precision>) -> Result<Checkpoint> {
        let config = LlamaConfig::read(folder)?;
        let shards = Shards::open(folder)?;
        let mut checkpoint = Checkpoint { folder: folder.to_path_buf(), config, shards, precision: Precision::F32 };
        checkpoint.verify()?;
        let stored = checkpoint.stored()?;
        checkpoint.precision = precision.unwrap_or(stored);
        if checkpoint.config.quantized.is_some() && checkpoint.precision != stored {
            let asked = checkpoint.precision;
            let reason = format!("holds {stored} weights; {asked} needs the directory that they were made from");
            return Err(Error::file(folder, reason));
        }
        Ok(checkpoint)
    }

    /// The configuration.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Where the files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What weights of the blocks are read as.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What the weights of the blocks are in the files.
    fn stored(&self) -> Result<Precision> {
        match self.config.quantized {
            Some(q) if q.bits == 4 => Ok(Precision::Int4),
            Some(_) => Ok(Precision::Int8),
            None => {
                let name = "model.layers.0.self_attn.q_proj.weight";
                let reader = self.shards.reader(name)?;
                float_precision(reader.dtype(name)?).ok_or_else(|| reader.error(name, "is no float"))
            }
        }
    }

    /// What a layer's matrix is read as: the last layer keeps 8 bits where the blocks have 4, an embedding of its own
    /// stays as it is, since a token reads only one of its rows.
    fn precision_of(&self, layer: &str) -> Option<Precision> {
        match (self.precision.bits(), layer) {
            (Some(_), layout::EMBEDDING) if !self.config.tied => None,
            (Some(_), layout::EMBEDDING | layout::HEAD) => Some(Precision::Int8),
            _ => Some(self.precision),
        }
    }

    /// The weight of a layer, such as `model.layers.0.self_attn.q_proj`, in the checkpoint's precision.
    pub fn matrix(&self, layer: &str) -> Result<Weight> {
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
        };
        reader.expect_finite(&name, unbounded)?;
        let matrix = Weight::new(rows, columns, values)?;
        match self.precision_of(layer) {
            Some(precision) => matrix.to(precision).map_err(|e| reader.error(&name, e.to_string())),
            None => Ok(matrix),
        }
    }

    /// Bytes of what [`Checkpoint::matrix`] gives, scales included.
    pub(super) fn matrix_bytes(&self, layer: &str) -> Result<u64> {
        let Some([rows, columns]) = layout::matrix_shape(&self.config, layer) else { return Ok(0) };
        let bits = |bits: Bits| bits.bytes(columns) + 2 * columns / bits.group(columns).unwrap_or(columns);
        let row = match self.precision_of(layer) {
            Some(Precision::F32) => 4 * columns,
            Some(Precision::F16 | Precision::Bf16) => 2 * columns,
            Some(Precision::Int8) => bits(Bits::Eight),
            Some(Precision::Int4) => bits(Bits::Four),
            None => {
                let name = format!("{layer}.weight");
                columns * self.shards.reader(&name)?.dtype(&name)?.size()
            }
        };
        Ok((rows * row) as u64)
    }

    /// Bytes of all matrices that multiply a token's state.
    pub(super) fn bytes_per_token(&self) -> Result<u64> {
        let read_whole = |layer: &String| layer != layout::EMBEDDING || self.config.tied;
        layout::matrices(&self.config).filter(read_whole).map(|layer| self.matrix_bytes(&layer)).sum()
    }

    /// The gains of a norm, such as `model.norm`.
    pub fn vector(&self, layer: &str) -> Result<Tensor> {
        let name = format!("{layer}.weight");
        self.shards.reader(&name)?.tensor_of(&name, &[self.config.hidden_size])
    }

    /// Fails unless all matrices fit into a device's memory beside so many bytes of activations; the error says in
    /// which precision they would.
    pub(super) fn expect_room(&self, gpu: &Gpu, activations: usize) -> Result<()> {
        let bytes: u64 = layout::matrices(&self.config).map(|layer| self.matrix_bytes(&layer)).sum::<Result<_>>()?;
        let (needed, free) = (bytes as usize + activations, gpu.available()?);
        if needed <= free {
            return Ok(());
        }
        let numbers = self.config.matrix_parameters() as usize + self.config.vocab_size * self.config.hidden_size;
        let smaller = [(Precision::Bf16, 2 * numbers), (Precision::Int8, numbers + numbers / 64)]
            .into_iter()
            .chain([(Precision::Int4, numbers / 2 + numbers / 32)])
            .filter(|&(_, bytes)| bytes + activations <= free)
            .map(|(precision, bytes)| format!("{precision} ({})", Bytes::of(bytes)));
        let smaller: Vec<String> = smaller.collect();
        let advice = match smaller.is_empty() {
            true => "no precision would fit; use --device cpu".to_string(),
            false => format!("what would fit: {}; see --precision", smaller.join(", ")),
        };
        let (needed, free, precision) = (Bytes::of(needed), Bytes::of(free), self.precision);
        let reason = format!("{precision} weights and activations need {needed}, {free} are free; {advice}");
        Err(Error::device(format!("{gpu:?}"), "loading the language model", reason))
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
        for layer in layout::norms(&self.config) {
            let name = format!("{layer}.weight");
            match self.shards.reader(&name) {
                Ok(reader) => {
                    let (found, needed) = (reader.shape(&name)?, [self.config.hidden_size]);
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
