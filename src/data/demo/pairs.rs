//! Pairs of a picture and a text that the demo's encoder learns from (docs/pretraining.md).
//!
//! They are of the demo's knowledge base and of the kind of its mentions, and none of them is a mention of the demo: the
//! scenes are drawn anew, and what their sentences mention are keywords of the training split alone. A sentence stands
//! with a picture of what it is about alone, and a scene with words for what is in front, so that both towers learn to tell a
//! mention from what is named or stands beside it.

use std::path::Path;

use indicatif::ProgressBar;
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
const SENTENCES: u64 = 24;
const SPOKEN_OF: u64 = 25;

/// Streams of a round.
const STREAMS: u64 = 6;

/// Number of pictures.
#[derive(Clone, Copy, Debug)]
pub struct PairCounts {
    /// Scenes to learn from.
    pub scenes: usize,
    /// Sentences to learn from, each with a picture of what it is about.
    pub sentences: usize,
    /// Pictures of each glyph alone.
    pub alone: usize,
    /// Scenes to validate with, the same in all rounds.
    pub held_out: usize,
}

impl PairCounts {
    /// As many of all as go with this number of scenes; few scenes go with no picture of a glyph alone.
    pub fn with_scenes(self, scenes: usize) -> PairCounts {
        let part = |count: usize| (count * scenes + self.scenes / 2) / self.scenes;
        let [sentences, held_out] = [self.sentences, self.held_out].map(|count| part(count).max(1));
        PairCounts { scenes, sentences, alone: part(self.alone), held_out }
    }
}

/// Writes `images`, `pairs.jsonl` and `held-out.jsonl`, as `fissfuse pretrain` takes them, all or nothing. Each round has pictures
/// of its own. Gives the number of pictures.
pub fn write_pairs(folder: &Path, counts: PairCounts, round: u16, seed: u64, bar: &ProgressBar) -> Result<usize> {
    files::write_folder_whole(folder, |folder| write_all(folder, counts, round, seed, bar))
}

fn write_all(folder: &Path, counts: PairCounts, round: u16, seed: u64, bar: &ProgressBar) -> Result<usize> {
    let (emoji, glyphs) = (Emoji::all()?, Glyphs::decode()?);
    let PairCounts { scenes, sentences, alone, held_out } = counts;
    bar.set_length((scenes + sentences + emoji.len() * alone + held_out) as u64);
    let of_round = |stream: u64| stream + STREAMS * round as u64;
    let draw = |count, stream| learned(&emoji, count, stream, seed);
    let save = |name: &str, picture| {
        bar.inc(1);
        save_scene(&folder.join("images").join(name), &picture)
    };
    let rng = |stream: u64, i: usize| generator(seed, Purpose::Demo, stream << 32 | i as u64);
    let words = |name: &str, known: &Emoji, rng: &mut ChaCha8Rng| {
        [described(known, rng), recalled(known, rng)].map(|text| pair(name, text)).to_vec()
    };
    let scenes = draw(scenes, of_round(RECIPES));
    let scenes = each(&scenes, |i, recipe| {
        let (name, mut rng) = (format!("scene-{i:06}.jpg"), rng(of_round(SCENES), i));
        save(&name, scene::paint(&glyphs, recipe, &mut rng))?;
        Ok(words(&name, &emoji[recipe.target], &mut rng))
    })?;
    let sentences = draw(sentences, of_round(SENTENCES));
    let sentences = each(&sentences, |i, Recipe { mention, sentence, target, .. }| {
        let (name, mut rng) = (format!("sentence-{i:06}.jpg"), rng(of_round(SPOKEN_OF), i));
        save(&name, scene::paint_alone(&glyphs, *target, &mut rng))?;
        Ok(vec![pair(&name, format!("{mention}. {sentence}"))])
    })?;
    let alone: Vec<usize> = (0..emoji.len() * alone).map(|i| i / alone).collect();
    let alone = each(&alone, |i, &entity| {
        let (name, mut rng) = (format!("alone-{i:06}.jpg"), rng(of_round(ALONE), i));
        save(&name, scene::paint_alone(&glyphs, entity, &mut rng))?;
        Ok(words(&name, &emoji[entity], &mut rng))
    })?;
    let held_out = draw(held_out, HELD_OUT);
    let held_out = each(&held_out, |i, recipe| {
        let (name, known) = (format!("held-out-{i:06}.jpg"), &emoji[recipe.target]);
        save(&name, scene::paint(&glyphs, recipe, &mut rng(HELD_OUT, i)))?;
        Ok(vec![pair(&name, format!("{}. {}", known.name, known.description()))])
    })?;
    let pictures = [&scenes, &sentences, &alone, &held_out].iter().map(|of| of.len()).sum();
    let all = [scenes, sentences, alone].into_iter().flatten().flatten();
    write_lines(&folder.join("pairs.jsonl"), all)?;
    write_lines(&folder.join("held-out.jsonl"), held_out.into_iter().flatten())?;
    Ok(pictures)
}

/// The pairs of each picture, in parallel.
fn each<T: Sync>(of: &[T], pairs: impl Fn(usize, &T) -> Result<Vec<Value>> + Sync) -> Result<Vec<Vec<Value>>> {
    of.par_iter().enumerate().map(|(i, item)| pairs(i, item)).collect()
}

/// Scenes and sentences to learn from: of the training split's keywords.
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
        let counts = PairCounts { scenes: 3, sentences: 2, alone: 0, held_out: 2 };
        write_pairs(&folder.path().join("0"), counts, 0, 0, &ProgressBar::hidden()).unwrap();
        write_pairs(&folder.path().join("1"), counts, 1, 0, &ProgressBar::hidden()).unwrap();
        let in_round = |round: &str, name: &str| fs::read_to_string(folder.path().join(round).join(name)).unwrap();
        assert_ne!(in_round("0", "pairs.jsonl"), in_round("1", "pairs.jsonl"));
        assert_eq!(in_round("0", "held-out.jsonl"), in_round("1", "held-out.jsonl"));
        let lines = |name: &str| in_round("0", name);
        for (name, pairs, images) in [("pairs.jsonl", 8, 5), ("held-out.jsonl", 2, 2)] {
            let text = lines(name);
            let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let distinct: HashSet<&str> = records.iter().map(|r| r["image"].as_str().unwrap()).collect();
            assert_eq!((records.len(), distinct.len()), (pairs, images));
            assert!(distinct.iter().all(|image| folder.path().join("0/images").join(image).exists()));
            assert!(records.iter().all(|r| !r["text"].as_str().unwrap().is_empty()));
        }
    }

    #[test]
    fn no_keyword_of_valid_and_test_is_among_those_to_learn_from() {
        let emoji = Emoji::all().unwrap();
        let rounds = (0..4).flat_map(|round| [RECIPES, SENTENCES].map(|stream| stream + STREAMS * round));
        let recipes: Vec<Recipe> =
            rounds.chain([HELD_OUT]).flat_map(|stream| learned(&emoji, 40_000, stream, 0)).collect();
        let keywords: HashSet<&str> = recipes.iter().map(|r| &r.mention[..]).collect();
        for split in [Split::Valid, Split::Test] {
            for recipe in draw(&emoji, split, Sizes::FULL, 0) {
                assert!(!keywords.contains(&recipe.mention[..]), "{recipe:?}");
            }
        }
    }
}
