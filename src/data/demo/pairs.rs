//! Pairs of a picture and a text that the demo's encoder learns from (docs/pretraining.md).
//!
//! They are of the demo's knowledge base and of the kind of its mentions, and none of them is a mention of the demo: the
//! scenes are drawn anew, and their sentences have (keyword, entity) pairs of the training split alone.

use std::path::Path;

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::glyphs::Glyphs;
use super::recipes::{Recipe, draw_with};
use super::{Emoji, save_scene, scene, write_lines};
use crate::data::Split;
use crate::error::Result;
use crate::files;
use crate::random::{Purpose, generator};

/// Streams of draws of the first round, apart from those of the demo's mentions.
const RECIPES: u64 = 20;
const SCENES: u64 = 21;
const ALONE: u64 = 22;
const HELD_OUT: u64 = 23;

/// Streams of a round.
const STREAMS: u64 = 4;

/// Number of pictures.
#[derive(Clone, Copy, Debug)]
pub struct PairCounts {
    /// Scenes to learn from.
    pub scenes: usize,
    /// Pictures of each glyph alone.
    pub alone: usize,
    /// Scenes to validate with, the same in all rounds.
    pub held_out: usize,
}

/// Writes `images`, `pairs.jsonl` and `held-out.jsonl`, as `fissfuse pretrain` takes them, all or nothing. Each round has pictures
/// of its own. Gives the number of pictures.
pub fn write_pairs(folder: &Path, counts: PairCounts, round: u16, seed: u64) -> Result<usize> {
    files::write_folder_whole(folder, |folder| write_all(folder, counts, round, seed))
}

fn write_all(folder: &Path, counts: PairCounts, round: u16, seed: u64) -> Result<usize> {
    let (emoji, glyphs) = (Emoji::all()?, Glyphs::decode()?);
    let of_round = |stream: u64| stream + STREAMS * round as u64;
    let draw = |count, stream| learned(&emoji, count, stream, seed);
    let paint = |(name, stream, recipes): (&str, u64, &[Recipe]), with_sentence: bool| {
        let one = |(i, recipe): (usize, &Recipe)| {
            let (name, mut rng) =
                (format!("{name}-{i:06}.jpg"), generator(seed, Purpose::Demo, stream << 32 | i as u64));
            save_scene(&folder.join("images").join(&name), &scene::paint(&glyphs, recipe, &mut rng))?;
            let known = &emoji[recipe.target];
            Ok(match with_sentence {
                false => vec![pair(&name, format!("{}. {}", known.name, known.description()))],
                true => {
                    let sentence = format!("{}. {}", recipe.mention, recipe.sentence);
                    [described(known, &mut rng), recalled(known, &mut rng), sentence]
                        .map(|text| pair(&name, text))
                        .into()
                }
            })
        };
        recipes.par_iter().enumerate().map(one).collect::<Result<Vec<_>>>()
    };
    let scenes = paint(("scene", of_round(SCENES), &draw(counts.scenes, of_round(RECIPES))), true)?;
    let held_out = paint(("held-out", HELD_OUT, &draw(counts.held_out, HELD_OUT)), false)?;
    let alone = |i: usize| {
        let (entity, mut rng) = (i / counts.alone, generator(seed, Purpose::Demo, of_round(ALONE) << 32 | i as u64));
        let (known, name) = (&emoji[entity], format!("alone-{i:06}.jpg"));
        save_scene(&folder.join("images").join(&name), &scene::paint_alone(&glyphs, entity, &mut rng))?;
        Ok([described(known, &mut rng), recalled(known, &mut rng)].map(|text| pair(&name, text)))
    };
    let alone = (0..emoji.len() * counts.alone).into_par_iter().map(alone).collect::<Result<Vec<_>>>()?;
    let pictures = scenes.len() + held_out.len() + alone.len();
    let all = scenes.into_iter().flatten().chain(alone.into_iter().flatten());
    write_lines(&folder.join("pairs.jsonl"), all)?;
    write_lines(&folder.join("held-out.jsonl"), held_out.into_iter().flatten())?;
    Ok(pictures)
}

/// What scenes to learn from say and show: of the training split's (keyword, entity) pairs.
fn learned(emoji: &[Emoji], count: usize, stream: u64, seed: u64) -> Vec<Recipe> {
    draw_with(emoji, Split::Train, count, seed, generator(seed, Purpose::Demo, stream))
}

fn pair(image: &str, text: String) -> Value {
    json!({"image": image, "text": text})
}

/// An entity as the knowledge base describes it, its keywords in another order.
fn described(emoji: &Emoji, rng: &mut ChaCha8Rng) -> String {
    let mut emoji = emoji.clone();
    emoji.keywords.shuffle(rng);
    format!("{}. {}", emoji.name, emoji.description())
}

/// Two things that are known about an entity, or its name where there is no more.
fn recalled(emoji: &Emoji, rng: &mut ChaCha8Rng) -> String {
    let known: Vec<&str> = emoji.keywords.iter().chain([&emoji.name]).map(String::as_str).collect();
    known.choose_multiple(rng, 2).copied().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use super::super::recipes::{Sizes, draw};
    use super::*;

    #[test]
    fn pairs_are_written_as_pretraining_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let counts = PairCounts { scenes: 3, alone: 0, held_out: 2 };
        write_pairs(&folder.path().join("0"), counts, 0, 0).unwrap();
        write_pairs(&folder.path().join("1"), counts, 1, 0).unwrap();
        let in_round = |round: &str, name: &str| fs::read_to_string(folder.path().join(round).join(name)).unwrap();
        assert_ne!(in_round("0", "pairs.jsonl"), in_round("1", "pairs.jsonl"));
        assert_eq!(in_round("0", "held-out.jsonl"), in_round("1", "held-out.jsonl"));
        let lines = |name: &str| in_round("0", name);
        for (name, pairs, images) in [("pairs.jsonl", 9, 3), ("held-out.jsonl", 2, 2)] {
            let text = lines(name);
            let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let distinct: HashSet<&str> = records.iter().map(|r| r["image"].as_str().unwrap()).collect();
            assert_eq!((records.len(), distinct.len()), (pairs, images));
            assert!(distinct.iter().all(|image| folder.path().join("0/images").join(image).exists()));
            assert!(records.iter().all(|r| !r["text"].as_str().unwrap().is_empty()));
        }
    }

    #[test]
    fn no_recipe_of_the_demo_is_among_those_to_learn_from() {
        let emoji = Emoji::all().unwrap();
        let recipes: Vec<Recipe> = [RECIPES, RECIPES + STREAMS, HELD_OUT]
            .iter()
            .flat_map(|&stream| learned(&emoji, 60_000, stream, 0))
            .collect();
        let pairs: HashSet<(&str, usize)> = recipes.iter().map(|r| (&r.mention[..], r.target)).collect();
        let sentences: HashSet<&str> = recipes.iter().map(|r| &r.sentence[..]).collect();
        for split in [Split::Valid, Split::Test] {
            for recipe in draw(&emoji, split, Sizes::FULL, 0) {
                assert!(!pairs.contains(&(&recipe.mention[..], recipe.target)), "{recipe:?}");
                assert!(!sentences.contains(&recipe.sentence[..]), "{recipe:?}");
            }
        }
    }
}
