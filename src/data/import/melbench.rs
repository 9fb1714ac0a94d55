//! MELBench: Wikidata-MEL (several mentions of a sentence) and Richpedia-MEL (whose key is the answer).

use rand::seq::SliceRandom;

use super::document::Document;
use super::draft::{About, Draft, DraftEntity, DraftMention};
use super::images::ImageSource;
use super::record::{Sentence, each, not_empty};
use super::source::Source;
use super::{Published, SplitUnit};
use crate::data::Split;
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};

const WIKIDATA: &str = "Wikidata-MEL.json";
const RICHPEDIA: &str = "Richpedia-MEL.json";

/// Reads the folder. Its knowledge base is the answers; there are neither descriptions nor candidates.
pub fn read(source: &mut Source) -> Result<Draft> {
    let path = source.need(&[WIKIDATA, RICHPEDIA])?;
    let wikidata = path.ends_with(WIKIDATA);
    let images = source.images(&source.settings.mention_images, &["KVQAimgs", "mentions/KVQAimgs"])?;
    let images = images.filter(|_| wikidata);
    let document = Document::open(&path)?;
    let mut draft = Draft::new(About { published: wikidata.then_some(Published::WIKIMEL), ..About::default() });
    let mut read: Vec<Vec<DraftMention>> = Vec::new();
    let mut number = 0;
    each(source, &document, document.object::<Sentence>()?, |key, mut record| {
        let links = record.links()?;
        number += 1;
        // Richpedia-MEL's key is the answer: as an identifier it would give it away.
        let id = if wikidata { key.to_string() } else { format!("richpedia-{number}") };
        let alone = links.len() == 1;
        let mut mentions = Vec::new();
        for (i, link) in links.into_iter().enumerate() {
            if link.mention.trim().is_empty() || record.sentence.trim().is_empty() {
                return Err(format!("record `{key}` has an empty mention or sentence"));
            }
            draft.entity(DraftEntity {
                qid: link.answer.clone(),
                name: link.entity,
                description: String::new(),
                image: ImageSource::None,
            })?;
            mentions.push(DraftMention {
                id: if alone { id.clone() } else { format!("{id}-{i}") },
                mention: link.mention,
                sentence: record.sentence.clone(),
                image: images.as_ref().map_or(ImageSource::None, |folder| ImageSource::Stem(folder.join(&id))),
                candidates: Vec::new(),
                gold: link.answer,
            });
        }
        draft.count("sentences of the source");
        read.push(mentions);
        Ok(())
    })?;
    not_empty(read.len(), source, "sentence")?;
    if source.settings.unit == SplitUnit::Mention {
        read = read.into_iter().flatten().map(|mention| vec![mention]).collect();
    }
    if let Some(seed) = source.settings.seed {
        read.shuffle(&mut generator(seed, Purpose::Split, 0));
    }
    let shares = split(read.iter().map(Vec::len));
    for (split, mentions) in shares.into_iter().zip(read) {
        for mention in mentions {
            if let Err(reason) = draft.mention(split, mention) {
                source.skip(Error::file(&path, reason))?;
            }
        }
    }
    Ok(draft)
}

/// The split of each group of mentions, 7:1:2 for training, validation and test: groups in order, until a split has its
/// share of the mentions. Of 25,846 that makes the published 18,092, 2,585 and 5,169.
fn split(groups: impl Iterator<Item = usize> + Clone) -> Vec<Split> {
    let total: usize = groups.clone().sum();
    let (train, test) = (total * 7 / 10, total * 2 / 10);
    let valid_end = total - test;
    let mut before = 0;
    groups
        .map(|mentions| {
            let at = before;
            before += mentions;
            match at {
                _ if at < train => Split::Train,
                _ if at < valid_end => Split::Valid,
                _ => Split::Test,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_has_the_published_sizes() {
        let splits = split(std::iter::repeat_n(1, 25_846));
        assert_eq!(Split::ALL.map(|one| splits.iter().filter(|&&s| s == one).count()), [18_092, 2_585, 5_169]);
        assert_eq!(split([3, 3, 2, 2].into_iter()), [Split::Train, Split::Train, Split::Train, Split::Test]);
    }
}
