//! What an array job has encoded, simulated: a dataset, a random store of it in parts, and a random model.

use std::path::Path;

use rand::Rng;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::simulation::{Simulation, simulate};
use crate::bytes::Bytes;
use crate::data::{
    Dataset, EncodeSettings, Items, Kind, Manifest, Skipped, Stamp, StoreWriter, Tolerance, image_key, store_files,
    text_key,
};
use crate::encoder::{Encoded, Precision};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Model, ModelConfig, Widths};
use crate::provenance::Provenance;
use crate::random::{Purpose, generator};
use crate::shard::{Part, Run, Shard};
use crate::train::{RunIdentity, TrainSettings, TrainedModel};

/// Numbers that features are taken from: more than a processor's caches hold.
const NOISE: usize = 1 << 22;

/// Lengths of what is stored.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Tokens of a text.
    pub tokens: usize,
    /// Patches of an image.
    pub patches: usize,
}

/// Writes a dataset into `data`, its features of these widths in so many parts into `parts`, and a model into
/// `model.safetensors`. Gives the bytes of features. Fails before it begins if these have no room on the disk.
pub fn write_world(folder: &Path, of: Simulation, lengths: Lengths, widths: Widths, parts: usize) -> Result<u64> {
    files::expect_folder_at(folder)?;
    if std::fs::read_dir(folder).is_ok_and(|mut there| there.next().is_some()) {
        return Err(Error::file(folder, "is not empty; choose another folder"));
    }
    let manifest = manifest(lengths, widths);
    let (texts, images) = (lengths.tokens.saturating_mul(widths.text), lengths.patches.saturating_mul(widths.image));
    let numbers = texts.saturating_add(widths.text_global).saturating_add(images).saturating_add(widths.image_global);
    let item = numbers.saturating_mul(2);
    let bytes = item.saturating_mul(of.entities.saturating_add(of.mentions)) as u64;
    if of.mentions < 5 {
        return Err(Error::invalid(format!("{} mentions leave a split without any; take 5 at least", of.mentions)));
    }
    if item > NOISE {
        let reason = format!("{lengths:?}: an item takes {}; take fewer tokens or patches", Bytes::of(item));
        return Err(Error::invalid(reason));
    }
    files::create_folder(folder)?;
    files::expect_room_for(&folder.join("parts"), bytes)?;
    simulate(&folder.join("data"), of)?;
    let mut skipped = Skipped::default();
    let dataset = Dataset::open(&folder.join("data"), Tolerance::Strict, &mut skipped)?;
    let distinct = Items::of(&dataset, &mut skipped)?.distinct(&manifest);
    let provenance = Provenance::new("simulated".into(), dataset.checksum()?);
    let mut run = Run::new();
    run.insert("dataset".into(), json!(provenance.dataset));
    run.insert("features".into(), json!(manifest));
    let mut draws = generator(of.seed, Purpose::Benchmark, 0);
    let noise: Vec<f32> = (0..NOISE).map(|_| draws.random_range(-1.75..1.75)).collect();
    (1..=parts).into_par_iter().try_for_each(|index| {
        let shard = Shard::new(index, parts).ok_or_else(|| Error::invalid(format!("{parts} parts are too many")))?;
        let mut part = Part::begin(&folder.join("parts"), "encode", shard, run.clone())?;
        let mut writer = StoreWriter::open(part.folder(), manifest.clone())?;
        let mut draws = generator(of.seed, Purpose::Benchmark, 1 + index as u64);
        let mut encoded = |rows: usize, width: usize, global: usize| {
            let mut take = |n: usize| {
                let start = draws.random_range(0..=NOISE - n);
                noise[start..start + n].to_vec()
            };
            Encoded { tokens: take(rows * width), global: take(global) }
        };
        let mut add = |kind, key, encoded| writer.add(kind, key, &encoded, Stamp::default());
        add(Kind::Image, image_key(None), encoded(lengths.patches, widths.image, widths.image_global))?;
        for text in &distinct.texts[part.share("texts", distinct.texts.len(), 1)] {
            add(Kind::Text, text_key(text), encoded(lengths.tokens, widths.text, widths.text_global))?;
        }
        for name in &distinct.images[part.share("images", distinct.images.len(), 1)] {
            add(Kind::Image, image_key(Some(name)), encoded(lengths.patches, widths.image, widths.image_global))?;
        }
        writer.finish()?;
        let files = store_files(part.folder())?;
        part.finish(&files, Value::Null).map(drop)
    })?;
    let model = Model::new(ModelConfig { widths, ..ModelConfig::default() }, of.seed)?;
    let settings = TrainSettings::default();
    let identity = RunIdentity { settings: &settings, manifest: &manifest, encoder: None, provenance: &provenance };
    TrainedModel::write(&folder.join("model.safetensors"), &model, identity, 1, None)?;
    Ok(bytes)
}

/// Of stores that no encoder made.
fn manifest(lengths: Lengths, widths: Widths) -> Manifest {
    let EncodeSettings { max_tokens, mention_template, entity_template, missing_image, exif_orientation, .. } =
        EncodeSettings::default();
    Manifest {
        format: Manifest::FORMAT,
        text_encoder: "simulated".into(),
        image_encoder: "simulated".into(),
        precision: Precision::F32,
        widths,
        patches: lengths.patches,
        max_tokens,
        mention_template,
        entity_template,
        missing_image,
        exif_orientation,
    }
}
