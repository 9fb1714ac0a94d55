//! The demo: a small, real, freely licensed multimodal entity linking task, drawn by seed.
//!
//! The knowledge base is the emoji (assets/emoji): an entity's image is its glyph, its description its keywords and
//! group. A mention is a keyword that several emoji share; its image is a scene in which the right one stands among
//! others, and its sentence names what stands beside it and, half of the time, one more property of it.

mod glyphs;
mod pairs;
mod recipes;
mod scene;

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::json;

pub use pairs::{PairCounts, write_pairs};
pub use recipes::Sizes;
use recipes::{Recipe, draw};

use super::{Dataset, Split};
use crate::error::{Error, Result};
use crate::files;
use crate::random::{Purpose, generator};

/// An emoji.
#[derive(Clone, Debug, Deserialize)]
struct Emoji {
    qid: String,
    name: String,
    keywords: Vec<String>,
    group: String,
    subgroup: String,
}

impl Emoji {
    fn all() -> Result<Vec<Emoji>> {
        const TEXT: &str = include_str!("../../../assets/emoji/entities.jsonl");
        let parse = |line| serde_json::from_str(line).map_err(|e| Error::invalid(format!("demo entities: {e}")));
        TEXT.lines().map(parse).collect()
    }

    fn description(&self) -> String {
        let facts = self.keywords.iter().map(String::as_str).chain([self.subgroup.as_str(), self.group.as_str()]);
        facts.collect::<Vec<_>>().join(", ")
    }
}

/// Writes the demo's dataset: `entities.jsonl`, three files of mentions and their images.
pub fn write(folder: &Path, sizes: Sizes, seed: u64) -> Result<()> {
    let emoji = Emoji::all()?;
    let glyphs = glyphs::Glyphs::decode()?;
    let image = |qid: &str| format!("images/{qid}.png");
    let entities = emoji
        .iter()
        .map(|e| json!({"qid": e.qid, "name": e.name, "description": e.description(), "image": image(&e.qid)}));
    write_lines(&folder.join("entities.jsonl"), entities)?;
    emoji.par_iter().enumerate().try_for_each(|(i, e)| {
        let path = folder.join(image(&e.qid));
        let picture = glyphs.on_white(i);
        save(&path, |out| picture.write_to(out, image::ImageFormat::Png))
    })?;
    for split in Split::ALL {
        let recipes = draw(&emoji, split, sizes, seed);
        let scene = |i: usize| format!("images/{split}-{i:05}.jpg");
        recipes.par_iter().enumerate().try_for_each(|(i, recipe)| {
            let mut rng = generator(seed, Purpose::Demo, (10 + split as u64) << 32 | i as u64);
            let picture = scene::paint(&glyphs, recipe, &mut rng);
            save_scene(&folder.join(scene(i)), &picture)
        })?;
        let lines = recipes.iter().enumerate().map(|(i, recipe)| mention(recipe, &emoji, split, i, scene(i)));
        write_lines(&folder.join(split.file()), lines)?;
    }
    Ok(())
}

fn mention(recipe: &Recipe, emoji: &[Emoji], split: Split, index: usize, image: String) -> serde_json::Value {
    let qid = |&i: &usize| emoji[i].qid.as_str();
    json!({
        "mention_id": format!("{split}-{index}"),
        "mention": recipe.mention,
        "sentence": recipe.sentence,
        "image": image,
        "candidates": recipe.candidates.iter().map(qid).collect::<Vec<_>>(),
        "gold": qid(&recipe.target),
    })
}

fn write_lines(path: &Path, lines: impl Iterator<Item = serde_json::Value>) -> Result<()> {
    files::write_whole(path, |out| {
        for line in lines {
            writeln!(out, "{line}")?;
        }
        Ok(())
    })
}

fn save_scene(path: &Path, picture: &image::DynamicImage) -> Result<()> {
    save(path, |out| picture.write_with_encoder(JpegEncoder::new_with_quality(out, 92)))
}

fn save(path: &Path, encode: impl FnOnce(&mut std::io::Cursor<Vec<u8>>) -> image::ImageResult<()>) -> Result<()> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    encode(&mut bytes).map_err(|e| Error::file(path, format!("cannot be encoded: {e}")))?;
    files::write_new(path, bytes.get_ref())
}

/// Names and descriptions of the knowledge base: a tokenizer can learn words from them.
pub fn descriptions() -> Result<Vec<String>> {
    Ok(Emoji::all()?.iter().map(|e| format!("{}. {}", e.name, e.description())).collect())
}

/// Texts that the demo's tokenizer learns its words from: all of the knowledge base and the training sentences.
pub fn tokenizer_texts(dataset: &Dataset) -> Result<Vec<String>> {
    let mut texts: Vec<String> = dataset.entities().iter().map(|e| format!("{}. {}", e.name, e.description)).collect();
    let training = dataset.mentions(Split::Train, &mut super::Skipped::default())?;
    texts.extend(training.into_iter().map(|m| m.sentence));
    Ok(texts)
}
