//! Mentions on which models differ, with what each ranks first (Fig. 10).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::trial::Data;
use crate::data::{Entity, Mention, Ranking, RunFile, Skipped, Tolerance};
use crate::error::Result;

/// Entities that are shown of each ranking.
const SHOWN: usize = 3;

/// A mention with what each row ranks first.
#[derive(Debug, Serialize)]
pub struct Example {
    /// The mention's identifier.
    pub mention_id: String,
    /// The span.
    pub mention: String,
    /// Its sentence.
    pub sentence: String,
    /// Its image, if it has one.
    pub image: Option<String>,
    /// Name of the right entity.
    pub gold: String,
    /// The three best entities of each row.
    pub ranked: Vec<(String, Vec<Ranked>)>,
}

/// An entity that a row ranks among the first.
#[derive(Debug, Serialize)]
pub struct Ranked {
    /// Its identifier.
    pub qid: String,
    /// Its name.
    pub name: String,
    /// Its image, if it has one.
    pub image: Option<String>,
    /// Whether it is the right one.
    pub right: bool,
    /// What it is ranked by.
    pub score: Option<f32>,
    /// What each score gives it, by the scores' names.
    pub by_score: Map<String, Value>,
}

/// A row's run file.
struct Run<'a> {
    row: &'a str,
    rankings: HashMap<String, Ranking>,
    scores: HashMap<String, Vec<(String, Vec<f32>)>>,
}

impl Run<'_> {
    fn read<'a>(data: &Data, row: &'a str, path: &Path) -> Result<Run<'a>> {
        let file = RunFile::read(path)?;
        let run = file.rankings(data.dataset, &data.test, Tolerance::Strict, &mut Skipped::default())?;
        let by_mention = run.rankings.into_iter().map(|ranking| (ranking.mention.id.clone(), ranking));
        Ok(Run { row, rankings: by_mention.collect(), scores: file.scores_by_name() })
    }

    /// What it ranks first of a mention that it has.
    fn best(&self, mention: &Mention, data: &Data) -> Vec<Ranked> {
        let Some(ranking) = self.rankings.get(&mention.id) else { return Vec::new() };
        let apart = self.scores.get(&mention.id).map(Vec::as_slice).unwrap_or_default();
        let ranked = |(at, &entity): (usize, &u32)| {
            let Entity { qid, name, image, .. } = &data.dataset.entities()[entity as usize];
            Ranked {
                qid: qid.clone(),
                name: name.clone(),
                image: image.clone(),
                right: mention.gold == Some(entity),
                score: ranking.scores.as_ref().and_then(|scores| scores.get(at).copied()),
                by_score: apart.iter().map(|(name, scores)| (name.clone(), json!(scores.get(at)))).collect(),
            }
        };
        ranking.candidates.iter().take(SHOWN).enumerate().map(ranked).collect()
    }
}

/// Mentions whose right entity `right` ranks first and no other row does, in the order of the test split. `runs` are the
/// rows' run files by their names.
pub fn examples(data: &Data, right: &str, runs: &[(String, PathBuf)], most: usize) -> Result<Vec<Example>> {
    let runs: Vec<Run> = runs.iter().map(|(row, run)| Run::read(data, row, run)).collect::<Result<_>>()?;
    let mut found = Vec::new();
    for mention in &data.test {
        let Some(gold) = mention.gold else { continue };
        let tells = |run: &Run| {
            let ranking = run.rankings.get(&mention.id)?;
            Some((ranking.candidates.first() == Some(&gold)) == (run.row == right))
        };
        if found.len() < most && runs.iter().all(|run| tells(run) == Some(true)) {
            found.push(Example {
                mention_id: mention.id.clone(),
                mention: mention.mention.clone(),
                sentence: mention.sentence.clone(),
                image: mention.image.clone(),
                gold: data.dataset.entities()[gold as usize].name.clone(),
                ranked: runs.iter().map(|run| (run.row.to_string(), run.best(mention, data))).collect(),
            });
        }
    }
    Ok(found)
}
