//! Runs the engine on a model and batch that the PyTorch reference drew (`reference/make_batch.py`), for comparison.

use std::path::Path;
use std::sync::Arc;

use crate::autograd::Parameters;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Batch, Modality, Model, ModelConfig, Side, Widths};
use crate::ops::Pairing;
use crate::tensor::safetensors::{Reader, Writer};
use crate::tensor::{FeatureRows, Indices, Ragged, RowTable, Tensor, Textbook};

/// What the engine computed on a batch, shaped as the reference's `expected.safetensors`.
pub struct Replayed {
    /// (scores, B, N)
    pub scores: Tensor,
    /// (B, N)
    pub similarity: Tensor,
    /// Eq. 12.
    pub loss: f32,
    /// Name and gradient of each parameter.
    pub gradients: Vec<(String, Tensor)>,
}

impl Replayed {
    /// Writes all of it under the reference's names.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut writer = Writer::default();
        let loss = [self.loss];
        writer.tensor("scores", &self.scores).tensor("similarity", &self.similarity).add("loss", &[1], &loss);
        for (name, grad) in &self.gradients {
            writer.tensor(format!("grad.{name}"), grad);
        }
        writer.write(path)
    }
}

/// Reads weights, batch and configuration and computes scores, loss and gradients, on a device or the host. Without a configuration file,
/// the widths come from the weights and all else is the reference's default.
pub fn replay(weights: &Path, batch: &Path, config: Option<&Path>, gpu: Option<&Gpu>) -> Result<Replayed> {
    let weights = Reader::open(weights)?;
    let config = match config {
        Some(path) => serde_json::from_str(&files::read_text_or_stream(path)?)
            .map_err(|e| Error::file(path, format!("is not a configuration: {e}")))?,
        None => config_of(&weights)?,
    };
    let parameters = Parameters::read(&weights, &config)?;
    let model = Model::with_parameters(config, parameters)?.to(gpu)?;
    let reader = Reader::open(batch)?;
    let (batch, mentions, candidates) = read_batch(&reader, model.config().widths)?;
    let step = model.gradients(&batch, None)?;
    let kinds = step.scores.kinds.len();
    let names = model.parameters().iter().map(|(name, _)| name.to_string());
    Ok(Replayed {
        similarity: Tensor::new([mentions, candidates], step.scores.similarity()?)?,
        scores: Tensor::new([kinds, mentions, candidates], step.scores.values.tensor().to(None)?.data().to_vec())?,
        loss: step.losses.to(None)?.data().iter().sum(),
        gradients: names.zip(step.gradients).map(|(name, g)| Ok((name, g.to(None)?))).collect::<Result<_>>()?,
    })
}

fn config_of(weights: &Reader) -> Result<ModelConfig> {
    let shape = |name: &str| match weights.shape(name)? {
        &[d, width] => Ok((d, width)),
        other => Err(weights.error(name, format!("has shape {other:?}, needs two axes"))),
    };
    let (d, text) = shape("text.linear.weight")?;
    let widths = Widths {
        text,
        text_global: shape("text_global.linear.weight")?.1,
        image: shape("image.linear.weight")?.1,
        image_global: shape("image_global.linear.weight")?.1,
    };
    Ok(ModelConfig { widths, d, ..ModelConfig::default() })
}

/// A batch with its number of mentions and of candidates of each.
fn read_batch(reader: &Reader, widths: Widths) -> Result<(Batch, usize, usize)> {
    let (mentions, candidates) = match reader.shape("entity.text_global")? {
        &[mentions, candidates, _] => (mentions, candidates),
        other => return Err(reader.error("entity.text_global", format!("has shape {other:?}, needs (B, N, width)"))),
    };
    let gold = reader.values::<i64>("gold")?;
    let in_list = |&g: &i64| (0..candidates as i64).contains(&g);
    if gold.len() != mentions || !gold.iter().all(in_list) {
        return Err(reader.error("gold", format!("needs {mentions} indices below {candidates}")));
    }
    let pairs = mentions * candidates;
    let left = (0..pairs).map(|p| (p / candidates) as u32).collect();
    let right = (0..pairs as u32).collect();
    let gold = gold.iter().enumerate().map(|(m, &g)| (m * candidates) as u32 + g as u32).collect();
    let (mention, entity) =
        (read_side(reader, "mention", mentions, widths)?, read_side(reader, "entity", pairs, widths)?);
    let batch = Batch::new(mention, entity, Pairing::new(left, mentions, right, pairs)?, gold)?;
    Ok((batch, mentions, candidates))
}

fn read_side(reader: &Reader, side: &str, items: usize, widths: Widths) -> Result<Side> {
    let modality = |name: &str, width: usize, global: usize| -> Result<Modality> {
        let (tokens, mask) = (format!("{side}.{name}"), format!("{side}.{name}_mask"));
        let length = match reader.shape(&tokens)? {
            &[.., length, w] if w == width => length,
            other => return Err(reader.error(&tokens, format!("has shape {other:?}, needs (.., length, {width})"))),
        };
        let values = reader.tensor(&tokens)?.data().to_vec();
        let real = reader.values::<u8>(&mask)?;
        if real.len() != items * length || values.len() != real.len() * width {
            return Err(reader.error(&tokens, format!("and its mask do not hold {items} sequences of {length}")));
        }
        let lengths: Vec<usize> = real.chunks_exact(length).map(|m| m.iter().filter(|&&x| x != 0).count()).collect();
        let rows: Vec<u32> = (0..real.len() as u32).filter(|&row| real[row as usize] != 0).collect();
        let textbook = Textbook { sequences: items, length };
        let sequences = Ragged::new(lengths, textbook).map_err(|e| reader.error(&mask, e.to_string()))?;
        let tokens = FeatureRows::new(Arc::new(RowTable::from_f32(width, values)?), rows);
        let global_name = format!("{side}.{name}_global");
        let table = RowTable::from_f32(global, reader.tensor(&global_name)?.data().to_vec())?;
        if table.rows() != items {
            return Err(reader.error(&global_name, format!("has {} rows, needs {items}", table.rows())));
        }
        let global = FeatureRows::new(Arc::new(table), (0..items as u32).collect::<Indices>());
        Ok(Modality { tokens: tokens.into(), sequences, global: global.into() })
    };
    Ok(Side {
        text: modality("text", widths.text, widths.text_global)?,
        image: modality("image", widths.image, widths.image_global)?,
    })
}
