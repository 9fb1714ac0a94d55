//! CLIP (Radford et al., 2021) from a Hugging Face directory: text and vision transformer, any size.

mod config;
mod random;

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

pub use config::ClipConfig;
pub use random::{RandomClip, write_random};

use super::layers::{Block, Norm, read_dense};
use super::{Encoded, Fingerprint, ImageEncoder, ImageProcessor, TextEncoder, Tokenizer};
use crate::device::cpu::{Buffer, Dense, Mat, vector};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tensor::safetensors::Reader;

/// Files that determine what the encoder computes.
const FILES: [&str; 4] = ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"];

/// Texts or images per forward pass: enough rows to fill the matrix products, few enough to stay in memory.
const BATCH: usize = 32;

/// Both towers with tokenizer and image processor.
pub struct Clip {
    config: ClipConfig,
    fingerprint: Fingerprint,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
    text: Text,
    vision: Vision,
}

struct Text {
    tokens: Tensor,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: Norm,
    projection: Dense,
}

struct Vision {
    class: Tensor,
    patches: Dense,
    positions: Tensor,
    before: Norm,
    blocks: Vec<Block>,
    after: Norm,
    projection: Dense,
}

impl Clip {
    /// Reads a directory with `config.json`, `model.safetensors`, `tokenizer.json`, `preprocessor_config.json`.
    pub fn open(folder: &Path) -> Result<Clip> {
        let config = ClipConfig::read(folder)?;
        let weights = folder.join("model.safetensors");
        if !weights.exists() {
            let reason = "is missing; if the model has only pytorch_model.bin, save it again with safe_serialization";
            return Err(Error::file(&weights, reason));
        }
        let reader = Reader::open(&weights)?;
        let processor = ImageProcessor::open(folder, config.vision_config.image_size as u32)?;
        Ok(Clip {
            fingerprint: Fingerprint::of(folder, &FILES)?,
            tokenizer: Tokenizer::open(folder)?,
            processor,
            text: Text::read(&reader, &config)?,
            vision: Vision::read(&reader, &config)?,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The projected vector of each row, scaled to length one.
    fn global(projection: &Dense, rows: &[f32], width: usize) -> Result<Vec<Vec<f32>>> {
        let projected = projection.forward(rows)?;
        let per_row = projected.len() / (rows.len() / width);
        Ok(projected
            .chunks_exact(per_row)
            .map(|row| {
                let length = vector::dot(row, row).sqrt();
                row.iter().map(|x| x / length).collect()
            })
            .collect())
    }

    /// Row of the sentence vector: transformers looks for the first end token, and in configurations written before
    /// it knew that token's number (they say 2) for the highest number.
    fn end_of(&self, ids: &[u32]) -> Result<usize> {
        let end = self.config.text_config.eos_token_id;
        let found = match end {
            2 => ids.iter().enumerate().rev().max_by_key(|(_, id)| **id).map(|(i, _)| i),
            _ => ids.iter().position(|&id| id == end),
        };
        found.ok_or_else(|| {
            Error::invalid(format!(
                "a text's tokens lack the end token {end} of config.json; tokenizer.json belongs to another model"
            ))
        })
    }

    fn encode_text_batch(&self, ids: &[Vec<u32>]) -> Result<Vec<Encoded>> {
        let (text, width) = (&self.text, self.config.text_config.hidden_size);
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let mut x = Buffer::scratch(lengths.iter().sum::<usize>() * width);
        let places = ids.iter().flat_map(|ids| ids.iter().enumerate());
        for (x, (position, &id)) in x.chunks_exact_mut(width).zip(places) {
            let token = text.tokens.data().get(id as usize * width..(id as usize + 1) * width).ok_or_else(|| {
                let vocabulary = self.config.text_config.vocab_size;
                Error::invalid(format!(
                    "token {id} is beyond the vocabulary of {vocabulary}; tokenizer.json belongs to another model"
                ))
            })?;
            x.copy_from_slice(token);
            vector::add(x, &text.positions.data()[position * width..][..width]);
        }
        text.blocks.iter().try_for_each(|block| block.forward(&mut x, &lengths, true))?;
        let x = text.norm.forward(&x);
        let mut ends = Vec::with_capacity(ids.len() * width);
        let mut start = 0;
        for ids in ids {
            ends.extend_from_slice(&x[(start + self.end_of(ids)?) * width..][..width]);
            start += ids.len();
        }
        Ok(collect(&x, &lengths, width, Clip::global(&text.projection, &ends, width)?))
    }

    fn encode_image_batch(&self, pixels: &[Vec<f32>]) -> Result<Vec<Encoded>> {
        let (vision, config) = (&self.vision, &self.config.vision_config);
        let (width, patches) = (config.hidden_size, self.patches());
        let flat: Vec<f32> = pixels.par_iter().flat_map(|p| config.cut_patches(p)).collect();
        let embedded = vision.patches.forward(&flat)?;
        let mut x = Buffer::scratch(pixels.len() * patches * width);
        let images = x.chunks_exact_mut(patches * width).zip(embedded.chunks_exact((patches - 1) * width));
        for (x, embedded) in images {
            x[..width].copy_from_slice(vision.class.data());
            x[width..].copy_from_slice(embedded);
            vector::add(x, vision.positions.data());
        }
        let mut x = vision.before.forward(&x);
        let lengths = vec![patches; pixels.len()];
        vision.blocks.iter().try_for_each(|block| block.forward(&mut x, &lengths, false))?;
        let first: Vec<f32> = x.chunks_exact(patches * width).flat_map(|image| &image[..width]).copied().collect();
        let global = Clip::global(&vision.projection, &vision.after.forward(&first), width)?;
        Ok(collect(&x, &lengths, width, global))
    }
}

/// Splits the rows of a batch into its sequences.
fn collect(x: &[f32], lengths: &[usize], width: usize, global: Vec<Vec<f32>>) -> Vec<Encoded> {
    let mut start = 0;
    let tokens = lengths.iter().map(|length| {
        start += length * width;
        x[start - length * width..start].to_vec()
    });
    tokens.zip(global).map(|(tokens, global)| Encoded { tokens, global }).collect()
}

impl Text {
    fn read(reader: &Reader, config: &ClipConfig) -> Result<Text> {
        let c = &config.text_config;
        let w = c.hidden_size;
        let block = |i: usize| Block::read(reader, &format!("text_model.encoder.layers.{i}"), c.sizes()?);
        let embeddings = "text_model.embeddings";
        Ok(Text {
            tokens: reader.tensor_of(&format!("{embeddings}.token_embedding.weight"), &[c.vocab_size, w])?,
            positions: reader
                .tensor_of(&format!("{embeddings}.position_embedding.weight"), &[c.max_position_embeddings, w])?,
            blocks: (0..c.num_hidden_layers).map(block).collect::<Result<_>>()?,
            norm: Norm::read(reader, "text_model.final_layer_norm", w, c.layer_norm_eps)?,
            projection: read_dense(reader, "text_projection", config.projection_dim, w, false)?,
        })
    }
}

impl Vision {
    fn read(reader: &Reader, config: &ClipConfig) -> Result<Vision> {
        let c = &config.vision_config;
        let (w, p) = (c.hidden_size, c.patch_size);
        let block = |i: usize| Block::read(reader, &format!("vision_model.encoder.layers.{i}"), c.sizes()?);
        let embeddings = "vision_model.embeddings";
        let patches = reader.tensor_of(&format!("{embeddings}.patch_embedding.weight"), &[w, 3, p, p])?;
        Ok(Vision {
            class: reader.tensor_of(&format!("{embeddings}.class_embedding"), &[w])?,
            patches: Dense::new(Mat::new(patches.data(), w, 3 * p * p), vec![0.0; w]),
            positions: reader.tensor_of(&format!("{embeddings}.position_embedding.weight"), &[c.patches(), w])?,
            // The missing letter is in every published file.
            before: Norm::read(reader, "vision_model.pre_layrnorm", w, c.layer_norm_eps)?,
            blocks: (0..c.num_hidden_layers).map(block).collect::<Result<_>>()?,
            after: Norm::read(reader, "vision_model.post_layernorm", w, c.layer_norm_eps)?,
            projection: read_dense(reader, "visual_projection", config.projection_dim, w, false)?,
        })
    }
}

impl TextEncoder for Arc<Clip> {
    fn identity(&self) -> String {
        format!("clip-text:{}", self.fingerprint.as_str())
    }

    fn widths(&self) -> (usize, usize) {
        (self.config.text_config.hidden_size, self.config.projection_dim)
    }

    fn encode_texts(&self, texts: &[&str], max_tokens: usize) -> Result<Vec<Encoded>> {
        let positions = self.config.text_config.max_position_embeddings;
        let tokenizer = self.tokenizer.at_most(max_tokens.min(positions))?;
        let ids: Vec<Vec<u32>> = texts.par_iter().map(|text| tokenizer.ids(text)).collect::<Result<_>>()?;
        let encoded: Vec<Vec<Encoded>> =
            ids.chunks(BATCH).map(|ids| self.encode_text_batch(ids)).collect::<Result<_>>()?;
        Ok(encoded.into_iter().flatten().collect())
    }
}

impl ImageEncoder for Arc<Clip> {
    fn identity(&self) -> String {
        format!("clip-image:{}", self.fingerprint.as_str())
    }

    fn widths(&self) -> (usize, usize) {
        (self.config.vision_config.hidden_size, self.config.projection_dim)
    }

    fn patches(&self) -> usize {
        Clip::patches(self)
    }

    fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    fn encode_images(&self, pixels: &[Vec<f32>]) -> Result<Vec<Encoded>> {
        let encoded: Vec<Vec<Encoded>> =
            pixels.chunks(BATCH).map(|pixels| self.encode_image_batch(pixels)).collect::<Result<_>>()?;
        Ok(encoded.into_iter().flatten().collect())
    }
}

impl Clip {
    fn patches(&self) -> usize {
        self.config.vision_config.patches()
    }
}
