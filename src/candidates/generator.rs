//! Finding a mention's candidates.

use std::collections::HashMap;

use super::inverted::{Inverted, Scores};
use super::names::Name;
use super::words::{bare, normalize, trigrams, words};
use crate::data::Entity;

/// Entities that the letter groups of a mention retrieve for each candidate that is asked for; comparing names sorts
/// them out.
const RETRIEVED: usize = 4;

/// What the best agreement with a description is worth, beside at most 1 for that with a name: enough to order entities
/// of equal names, too little to bring up an entity of another name before one of the same.
const BY_TEXT: f32 = 0.3;

/// A knowledge base, indexed by names and descriptions.
pub struct Generator {
    names: Vec<String>,
    exact: HashMap<String, Vec<u32>>,
    by_trigram: Inverted,
    by_word: Inverted,
}

/// Memory that one thread uses from mention to mention.
#[derive(Default)]
pub struct Scratch {
    names: Scores,
    texts: Scores,
    pool: Vec<u32>,
}

impl Generator {
    /// Indexes entities.
    pub fn new(entities: &[Entity]) -> Generator {
        let names: Vec<String> = entities.iter().map(|entity| normalize(bare(&entity.name))).collect();
        let mut exact: HashMap<String, Vec<u32>> = HashMap::new();
        for (entity, (bare, full)) in names.iter().zip(entities.iter().map(|e| normalize(&e.name))).enumerate() {
            exact.entry(bare.clone()).or_default().push(entity as u32);
            if full != *bare {
                exact.entry(full).or_default().push(entity as u32);
            }
        }
        let by_trigram = Inverted::new(names.iter().map(|name| trigrams(name)));
        let texts = entities.iter().map(|entity| match entity.description.trim() {
            // A name alone would answer to whatever else the sentence names.
            "" => String::new(),
            description => normalize(&format!("{} {description}", entity.name)),
        });
        let by_word = Inverted::new(texts.map(|text| words(&text).map(str::to_string).collect::<Vec<_>>().into_iter()));
        Generator { names, exact, by_trigram, by_word }
    }

    /// The `count` entities that agree best with a mention in its sentence, best first; fewer if fewer agree at all. The
    /// same input gives the same list.
    pub fn find(&self, mention: &str, sentence: &str, count: usize, scratch: &mut Scratch) -> Vec<u32> {
        let Scratch { names, texts, pool } = scratch;
        let normalized = normalize(mention);
        pool.clear();
        pool.extend(self.exact.get(&normalized).into_iter().flatten());
        self.by_trigram.score(trigrams(&normalized), names);
        names.top(RETRIEVED.saturating_mul(count), pool);
        let context = normalize(&format!("{mention} {sentence}"));
        self.by_word.score(words(&context), texts);
        let best = texts.best().max(f32::MIN_POSITIVE);
        texts.top(count, pool);
        pool.sort_unstable();
        pool.dedup();
        let name = Name::new(&normalized);
        let score = |&entity: &u32| {
            let agreement = name.agreement(&self.names[entity as usize]);
            (agreement + BY_TEXT * texts.get(entity) / best, entity)
        };
        let mut scored: Vec<(f32, u32)> = pool.iter().map(score).collect();
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored.into_iter().take(count).map(|(_, entity)| entity).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entities(names: &[(&str, &str)]) -> Vec<Entity> {
        let entity = |(i, (name, description)): (usize, &(&str, &str))| Entity {
            qid: format!("Q{i}"),
            name: name.to_string(),
            description: description.to_string(),
            image: None,
        };
        names.iter().enumerate().map(entity).collect()
    }

    #[test]
    fn names_find_and_descriptions_decide() {
        let generator = Generator::new(&entities(&[
            ("George Washington", "first president of the United States"),
            ("Washington (state)", "state in the northwest of the United States"),
            ("Washington, D.C.", "capital of the United States"),
            ("Björk", "singer from Iceland"),
            ("Paris", "capital of France"),
        ]));
        let mut scratch = Scratch::default();
        let mut find = |mention: &str, sentence: &str| generator.find(mention, sentence, 3, &mut scratch);
        assert_eq!(find("Washington", "Washington was elected president.")[0], 0);
        assert_eq!(find("Washington", "Forests in the northwest of Washington.")[0], 1);
        assert_eq!(find("Washinton DC", "The capital.")[0], 2);
        assert_eq!(find("bjork", "")[0], 3);
        // No letter of it is in the name: the description alone.
        assert_eq!(find("the French city", "The capital of France.")[0], 4);
        assert!(find("", "").is_empty());
    }

    #[test]
    fn without_descriptions_the_names_alone_count() {
        let generator = Generator::new(&entities(&[("Noel Harrison", ""), ("Stefanie Powers", ""), ("Powers", "")]));
        let found = generator.find("Powers", "Powers with Noel Harrison", usize::MAX, &mut Scratch::default());
        assert_eq!(found, [2, 1]);
    }
}
