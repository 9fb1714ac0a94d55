//! What is in a dataset, and what in it may mislead whoever measures on it.

mod images;
mod leaks;
mod lists;
mod loaded;
mod statistics;

use std::path::Path;

use serde::Serialize;

pub use images::ImageCheck;
pub use leaks::{GivenAway, Shared};
pub use lists::{GoldPosition, ListFaults, Rank, Recall};
pub use loaded::Loaded;
pub use statistics::{EntityStatistics, Lengths, SplitStatistics, Statistics};

use crate::error::Result;

/// Most bad records that an audit quotes.
const QUOTED: usize = 20;

/// An audit of a dataset.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Counts.
    pub statistics: Statistics,
    /// Things to know before measuring.
    pub findings: Findings,
}

/// What may mislead.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Records that cannot be used.
    pub bad_records: usize,
    /// The first of them.
    pub first_bad_records: Vec<String>,
    /// What stands on both sides of a split.
    pub shared: Vec<Shared>,
    /// Where gold entities stand in their lists.
    pub gold_positions: Vec<GoldPosition>,
    /// How often the gold entity is among the first of its list.
    pub recall: Vec<Recall>,
    /// What is wrong with lists.
    pub lists: ListFaults,
    /// Identifiers that texts give away.
    pub given_away: GivenAway,
    /// Entities whose name and description another one has too.
    pub indistinguishable: usize,
}

/// Audits the dataset in a folder. Bad records are counted, never an error.
pub fn audit(root: &Path, check: ImageCheck) -> Result<Audit> {
    let loaded = Loaded::read(root)?;
    let statistics = Statistics::of(&loaded, check);
    let findings = Findings {
        bad_records: loaded.bad.len(),
        first_bad_records: loaded.bad.iter().take(QUOTED).map(ToString::to_string).collect(),
        shared: leaks::shared(&loaded),
        gold_positions: lists::gold_positions(&loaded),
        recall: lists::recall(&loaded),
        lists: ListFaults::of(&loaded),
        given_away: GivenAway::of(&loaded),
        indistinguishable: leaks::indistinguishable(&loaded),
    };
    Ok(Audit { statistics, findings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    /// A dataset in which everything goes wrong once.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| crate::files::write_new(&folder.path().join(name), text.as_bytes()).unwrap();
        write(
            "entities.jsonl",
            r#"{"qid":"Q1","name":"One","description":"the first, Q1.","image":"images/a.png"}
{"qid":"Q2","name":"Two","image":"images/gone.png"}
{"qid":"Q3","name":"Two","image":"images/bad.png"}
{"qid":"Q1","name":"Again"}
{"qid":"Q12"}
"#,
        );
        let mention = |id: &str, sentence: &str, image: &str, candidates: &str, gold: &str| {
            format!(
                r#"{{"mention_id":"{id}","mention":"x","sentence":"{sentence}","image":"images/{image}.png","candidates":[{candidates}],"gold":"{gold}"}}"#
            )
        };
        write(
            "train.jsonl",
            &[
                mention("Q2-1", "x is Q12", "a", r#""Q1","Q2""#, "Q2"),
                mention("b", "a y", "gone", r#""Q3","Q3","Q1""#, "Q1"),
                mention("c", "x of Q3", "bad", r#""Q9","Q1","Q3""#, "Q3"),
                "{".into(),
            ]
            .join("\n"),
        );
        write(
            "test.jsonl",
            &[mention("d", "x is Q12", "copy", r#""Q1""#, "Q2"), mention("e", "x", "e", "", "Q7")].join("\n"),
        );
        write("images/bad.png", "no image");
        image::RgbImage::new(3, 3).save(folder.path().join("images/a.png")).unwrap();
        std::fs::copy(folder.path().join("images/a.png"), folder.path().join("images/copy.png")).unwrap();
        // A JPEG whose EXIF entry says that it lies on its side.
        let mut lying = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(5, 9).write_to(&mut lying, image::ImageFormat::Jpeg).unwrap();
        let exif = b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let lying = lying.into_inner();
        let lying = [&lying[..2], exif, &lying[2..]].concat();
        std::fs::write(folder.path().join("images/e.png"), lying).unwrap();
        folder
    }

    #[test]
    fn everything_is_counted() {
        let folder = folder();
        let Audit { statistics, findings } = audit(folder.path(), ImageCheck::Header).unwrap();
        let e = &statistics.entities;
        let counts = [e.entities, e.without_description, e.without_image, e.missing_images, e.unreadable_images];
        assert_eq!(counts, [3, 2, 0, 1, 1]);
        let [train, test, all] = &statistics.splits[..] else { panic!("{:?}", statistics.splits) };
        assert_eq!((train.mentions, test.mentions, all.mentions), (3, 2, 5));
        assert_eq!((train.sentences, all.sentences, all.gold_entities), (3, 4, 4));
        assert_eq!(train.candidates, Some(Lengths { least: 2, mean: 8.0 / 3.0, most: 3 }));
        assert_eq!((train.gold_in_list, test.gold_in_list, test.without_candidates), (3, 0, 0));
        // An empty list is one in which nothing is found, not one that was never made.
        assert_eq!(test.candidates, Some(Lengths { least: 0, mean: 0.5, most: 1 }));
        assert_eq!((train.missing_images, train.unreadable_images, train.not_in_sentence), (1, 1, 1));
        assert_eq!((train.turned_images, test.turned_images, all.turned_images, e.turned_images), (0, 1, 1, 0));
        assert_eq!(train.sentence_words, 8.0 / 3.0);

        assert_eq!(findings.bad_records, 3);
        assert!(findings.first_bad_records.iter().any(|r| r.contains("train.jsonl:4:")), "{findings:?}");
        let shared: Vec<_> = findings.shared.iter().map(|s| (s.what, s.split, s.with, s.mentions, s.of)).collect();
        // The copied image has another name and the same content.
        let [image, sentence, pair] = ["image", "sentence", "mention and gold entity"];
        let both = (Split::Test, Split::Train, 1, 2);
        assert_eq!(shared, [image, sentence, pair].map(|what| (what, both.0, both.1, both.2, both.3)));
        let faults = findings.lists;
        assert_eq!((faults.repeated, faults.unknown, faults.unknown_gold), (1, 1, 1));
        let given = findings.given_away;
        // `Q12` holds no `Q1` and no `Q2`.
        assert_eq!((given.entity_texts, given.sentences, given.mention_ids), (1, 1, 1));
        assert_eq!(findings.indistinguishable, 2);
    }

    #[test]
    fn a_gold_entity_that_is_always_last_is_found_and_recall_is_by_rank() {
        let folder = folder();
        let findings = audit(folder.path(), ImageCheck::None).unwrap().findings;
        let [train] = &findings.gold_positions[..] else { panic!("{:?}", findings.gold_positions) };
        assert_eq!((train.lists, train.last, train.fixed()), (3, 1.0, true));
        assert_eq!((train.position, train.share), (3, 2.0 / 3.0));
        assert_eq!((train.first, train.chance), (0.0, (0.5 + 1.0 / 3.0 + 1.0 / 3.0) / 3.0));
        let at: Vec<f64> = findings.recall[0].at.iter().map(|at| at.recall).collect();
        assert_eq!((at, findings.recall[0].mentions), (vec![0.0, 1.0, 1.0], 3));
        assert_eq!((findings.recall[1].split, findings.recall[1].mentions), (Split::Test, 2));
    }
}
