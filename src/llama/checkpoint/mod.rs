//! A model's weights, checked against its configuration before any of them is read, and converted as they are read.

mod hugging_face;
mod mixture;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use self::hugging_face::HuggingFace;
use super::gguf::InGguf;
use super::{Calibration, LlamaConfig, Source, layout};
use crate::bytes::Bytes;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::{Bits, BlockType, Matrix, Precision, Tensor};

/// Weights as files have them, by the names of their layers, such as `model.layers.0.self_attn.q_proj`.
pub(super) trait Stored: Send + Sync {
    /// What a layer's numbers are.
    fn precision(&self, layer: &str) -> Result<Precision>;

    /// A layer's matrix (outputs, inputs), mapped where that is possible.
    fn matrix(&self, layer: &str) -> Result<Matrix>;

    /// The gains of a norm (hidden_size), or a bias (outputs), such as `model.layers.0.self_attn.q_proj.bias`.
    fn vector(&self, layer: &str) -> Result<Tensor>;

    /// An error about a layer's matrix.
    fn error(&self, layer: &str, reason: String) -> Error;
}

/// The opened files of a model. Matrices are read when asked for: mapped where they have the wanted precision already,
/// else converted.
pub struct Checkpoint {
    path: PathBuf,
    config: LlamaConfig,
    stored: Box<dyn Stored>,
    /// What weights of the blocks are converted to.
    converted: Option<Precision>,
    precision: Precision,
    calibration: Calibration,
    /// The blocks that a calibration chose, by layer.
    mixture: HashMap<String, BlockType>,
    /// Blocks that weights were in once before they are converted, by layer.
    rounded: HashMap<String, BlockType>,
}

/// The blocks of a precision whose weights a text can say how to round. Fails for others.
pub fn rounded_by_a_text(precision: Precision) -> Result<BlockType> {
    match precision {
        Precision::Blocks(kind) if kind != BlockType::Q8_0 => Ok(kind),
        _ => Err(Error::invalid(format!("{precision} is not rounded by a text; q4_k, q5_k, q6_k and q4_0 are"))),
    }
}

impl Checkpoint {
    /// Opens a model's files and verifies names, shapes, types and shards. Weights are converted to `precision` as they are
    /// read; without one they stay as the files have them.
    ///
    /// Fails if a shard or a tensor is missing, has another shape than the configuration says, or if files that
    /// [`super::quantize`] wrote are asked for in another precision.
    pub fn open(source: &Source, precision: Option<Precision>) -> Result<Checkpoint> {
        let (path, config) = (source.path().to_path_buf(), source.config()?);
        let stored: Box<dyn Stored> = match source {
            Source::Folder(folder) => Box::new(HuggingFace::open(folder, &config)?),
            Source::Gguf(file) => Box::new(InGguf::open(file, &config)?),
        };
        let found = stored.precision("model.layers.0.self_attn.q_proj")?;
        if config.quantized.is_some() && precision.is_some_and(|asked| asked != found) {
            let asked = precision.unwrap_or(found);
            let reason = format!("holds {found} weights; {asked} needs the directory that they were made from");
            return Err(Error::file(path, reason));
        }
        // Blocks are of several types in one file, and all stay as they are; floats of a directory become alike.
        let converted = match source {
            Source::Folder(_) => Some(precision.unwrap_or(found)),
            Source::Gguf(_) => precision,
        };
        let (precision, calibration) = (precision.unwrap_or(found), Calibration::default());
        let (mixture, rounded) = Default::default();
        Ok(Checkpoint { path, config, stored, converted, precision, calibration, mixture, rounded })
    }

    /// The same, whose weights are rounded as a text says: those that count most in its products least, and, where a type of
    /// the K family is asked for, some matrices in more bits than others.
    ///
    /// Fails unless weights become blocks of fewer than 8 bits, or if the calibration is of another model.
    pub fn calibrated(mut self, calibration: Calibration) -> Result<Checkpoint> {
        let kind = rounded_by_a_text(self.converted.unwrap_or(self.precision))?;
        calibration.expect(&self.config)?;
        if matches!(kind, BlockType::Q4K | BlockType::Q5K | BlockType::Q6K) {
            self.mixture = mixture::calibrated(kind, &self.config, &calibration, |layer| self.stored.matrix(layer))?;
        }
        self.calibration = calibration;
        Ok(self)
    }

    /// The same with some matrices rounded to blocks, as a calibration says, and kept as numbers of the type that they had: a device
    /// multiplies those of one type together.
    pub(super) fn rounded(mut self, layers: &[String], kind: BlockType, calibration: &Calibration) -> Checkpoint {
        self.rounded = layers.iter().map(|layer| (layer.clone(), kind)).collect();
        self.calibration = calibration.clone();
        self
    }

    /// The configuration.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Where the files lie.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What weights of the blocks are read as; of blocks of several types that of the first layer's queries.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What a layer's matrix is converted to: blocks of GGUF files are mixed, and with int8 and int4 the last layer keeps 8 bits.
    /// An embedding of its own stays as it is then, since a token reads only one of its rows.
    fn converted(&self, layer: &str) -> Option<Precision> {
        if let Some(&kind) = self.mixture.get(layer) {
            return Some(Precision::Blocks(kind));
        }
        let converted = self.converted?;
        match (converted, layer) {
            (Precision::Blocks(kind), _) => Some(Precision::Blocks(mixture::block_type(kind, layer, &self.config))),
            (Precision::Int8 | Precision::Int4, layout::EMBEDDING) if !self.config.tied => None,
            (Precision::Int8 | Precision::Int4, layout::EMBEDDING | layout::HEAD) => Some(Precision::Int8),
            _ => Some(converted),
        }
    }

    /// The weight of a layer, such as `model.layers.0.self_attn.q_proj`, in the checkpoint's precision.
    pub fn matrix(&self, layer: &str) -> Result<Matrix> {
        let matrix = self.stored.matrix(layer)?;
        let (found, importance) = (matrix.precision(), self.calibration.importance(layer));
        let made = match self.rounded.get(layer) {
            Some(&kind) => matrix.calibrated(Precision::Blocks(kind), importance).and_then(|blocks| blocks.to(found)),
            None => Ok(matrix),
        };
        let made = made.and_then(|matrix| match self.converted(layer) {
            Some(precision) => matrix.calibrated(precision, importance),
            None => Ok(matrix),
        });
        made.map_err(|e| self.stored.error(layer, e.to_string()))
    }

    /// What [`Checkpoint::matrix`] gives a layer's matrix in.
    pub(super) fn precision_of(&self, layer: &str) -> Result<Precision> {
        self.converted(layer).map_or_else(|| self.stored.precision(layer), Ok)
    }

    /// Bytes of what [`Checkpoint::matrix`] gives, scales included.
    pub(super) fn matrix_bytes(&self, layer: &str) -> Result<u64> {
        let Some([rows, columns]) = layout::matrix_shape(&self.config, layer) else { return Ok(0) };
        let precision = self.precision_of(layer)?;
        let scales = precision.bits().map_or(0, |bits: Bits| 2 * columns / bits.group(columns).unwrap_or(columns));
        Ok((rows * (precision.bytes(columns) + scales)) as u64)
    }

    /// Bytes of all matrices that multiply a token's state.
    pub(super) fn bytes_per_token(&self) -> Result<u64> {
        let read_whole = |layer: &String| layer != layout::EMBEDDING || self.config.tied;
        layout::matrices(&self.config).filter(read_whole).map(|layer| self.matrix_bytes(&layer)).sum()
    }

    /// The gains of a norm, such as `model.norm`, or a bias, such as `model.layers.0.self_attn.q_proj.bias`.
    pub fn vector(&self, layer: &str) -> Result<Tensor> {
        self.stored.vector(layer)
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
}
