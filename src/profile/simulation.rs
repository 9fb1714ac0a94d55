//! A dataset of any size, drawn by seed: names, descriptions and sentences of made-up words, and JPEG images.

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage, imageops};
use rand::Rng;
use rayon::prelude::*;
use serde_json::json;

use crate::data::Split;
use crate::error::{Error, Result};
use crate::files;
use crate::random::{Purpose, generator};

/// Words that names and texts are made of; rare ones are as rare as in a language.
const VOCABULARY: usize = 30_000;

/// Images of a simulated dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// None.
    None,
    /// Their names alone, for stores that are simulated too.
    Named,
    /// JPEG files.
    Drawn,
}

/// Sizes of a simulated dataset.
#[derive(Clone, Copy, Debug)]
pub struct Simulation {
    /// Entities of the knowledge base.
    pub entities: usize,
    /// Mentions of all splits.
    pub mentions: usize,
    /// What every entity and mention has.
    pub images: Images,
    /// Draws everything.
    pub seed: u64,
}

/// Writes the dataset. A mention is an entity's last name, its whole name, or that with a letter missing; its sentence has
/// words of the description.
pub fn simulate(folder: &Path, of: Simulation) -> Result<()> {
    let entities: Vec<(String, Vec<String>)> = (0..of.entities).into_par_iter().map(|i| entity(of.seed, i)).collect();
    let image = |side: &str, i: usize| (of.images != Images::None).then(|| format!("images/{side}-{i:06}.jpg"));
    files::write_whole(&folder.join("entities.jsonl"), |out| {
        for (i, (name, description)) in entities.iter().enumerate() {
            let description = description.join(" ");
            let record =
                json!({"qid": format!("Q{i}"), "name": name, "description": description, "image": image("e", i)});
            writeln!(out, "{record}")?;
        }
        Ok(())
    })?;
    let train = of.mentions * 7 / 10;
    let valid = of.mentions - of.mentions * 2 / 10;
    for (split, range) in Split::ALL.into_iter().zip([0..train, train..valid, valid..of.mentions]) {
        files::write_whole(&folder.join(split.file()), |out| {
            for i in range {
                let mut rng = generator(of.seed, Purpose::Simulation, (of.entities + i) as u64);
                let gold = rng.random_range(0..of.entities);
                let (name, description) = &entities[gold];
                let mention = mention(name, &mut rng);
                let mut sentence: Vec<String> = (0..rng.random_range(4..12)).map(|_| word(draw(&mut rng))).collect();
                sentence.extend((0..2).map(|_| description[rng.random_range(0..description.len())].clone()));
                sentence.insert(rng.random_range(0..sentence.len()), mention.clone());
                let (sentence, qid) = (sentence.join(" "), format!("Q{gold}"));
                let record = json!({"mention_id": i.to_string(), "mention": mention, "sentence": sentence,
                    "image": image("m", i), "gold": qid});
                writeln!(out, "{record}")?;
            }
            Ok(())
        })?;
    }
    if of.images == Images::Drawn {
        files::create_folder(&folder.join("images"))?;
        let names = (0..of.entities).into_par_iter().map(|i| ("e", i));
        let names = names.chain((0..of.mentions).into_par_iter().map(|i| ("m", i)));
        names.try_for_each(|(side, i)| picture(&folder.join(format!("images/{side}-{i:06}.jpg")), of.seed, i))?;
    }
    Ok(())
}

/// A name of two or three words, and the words of a description.
fn entity(seed: u64, i: usize) -> (String, Vec<String>) {
    let mut rng = generator(seed, Purpose::Simulation, i as u64);
    let name: Vec<String> = (0..rng.random_range(2..4)).map(|_| word(draw(&mut rng))).collect();
    let description = (0..rng.random_range(8..40)).map(|_| word(draw(&mut rng))).collect();
    (name.join(" "), description)
}

fn mention(name: &str, rng: &mut impl Rng) -> String {
    let kind: f32 = rng.random();
    match name.rsplit_once(' ') {
        Some((_, last)) if kind < 0.5 => last.to_string(),
        _ if kind < 0.9 => name.to_string(),
        _ => {
            let at = rng.random_range(0..name.len());
            name.chars().enumerate().filter(|&(i, _)| i != at).map(|(_, c)| c).collect()
        }
    }
}

/// The number of a word; low ones come often.
fn draw(rng: &mut impl Rng) -> usize {
    (VOCABULARY as f32 * rng.random::<f32>().powi(3)) as usize
}

/// A word of its number: syllables of a consonant and a vowel.
fn word(number: usize) -> String {
    let (mut rest, mut word) = (number + 60, String::new());
    while rest > 0 {
        word.push(char::from(b"bdfgklmnprstvz"[rest % 14]));
        word.push(char::from(b"aeiou"[rest / 14 % 5]));
        rest /= 70;
    }
    word
}

/// A picture of soft colours.
fn picture(path: &Path, seed: u64, i: usize) -> Result<()> {
    let mut rng = generator(seed, Purpose::Simulation, (i as u64) << 32);
    let coarse = RgbImage::from_fn(8, 6, |_, _| Rgb(rng.random()));
    let picture = imageops::resize(&coarse, 400, 300, imageops::FilterType::Triangle);
    let mut bytes = Vec::new();
    let encoded = picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 85));
    encoded.map_err(|e| Error::file(path, format!("cannot be encoded: {e}")))?;
    files::write_new(path, &bytes)
}
