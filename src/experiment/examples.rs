//! Mentions on which models differ, with what each ranks first (Fig. 10).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::trial::Data;
use crate::data::{Ranking, RunFile, Skipped, Tolerance};
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
    /// Names of the three best entities of each row.
    pub ranked: Vec<(String, Vec<String>)>,
}

/// Mentions whose right entity `right` ranks first and no other row does, in the order of the test split. `runs` are the
/// rows' run files by their names.
pub fn examples(data: &Data, right: &str, runs: &[(String, PathBuf)], most: usize) -> Result<Vec<Example>> {
    let read = |run: &Path| -> Result<HashMap<String, Ranking>> {
        let run = RunFile::read(run)?.rankings(data.dataset, &data.test, Tolerance::Strict, &mut Skipped::default())?;
        Ok(run.rankings.into_iter().map(|ranking| (ranking.mention.id.clone(), ranking)).collect())
    };
    let rankings: Vec<(&String, HashMap<String, Ranking>)> =
        runs.iter().map(|(name, run)| Ok((name, read(run)?))).collect::<Result<_>>()?;
    let name = |entity: u32| data.dataset.entities()[entity as usize].name.clone();
    let mut found = Vec::new();
    for mention in &data.test {
        let of_mention: Option<Vec<(&String, &Ranking)>> =
            rankings.iter().map(|(row, rankings)| Some((*row, rankings.get(&mention.id)?))).collect();
        let (Some(of_mention), Some(gold)) = (of_mention, mention.gold) else { continue };
        let first = |ranking: &Ranking| ranking.candidates.first() == Some(&gold);
        if found.len() < most && of_mention.iter().all(|(row, ranking)| first(ranking) == (*row == right)) {
            let best = |ranking: &Ranking| ranking.candidates.iter().take(SHOWN).map(|&entity| name(entity)).collect();
            found.push(Example {
                mention_id: mention.id.clone(),
                mention: mention.mention.clone(),
                sentence: mention.sentence.clone(),
                image: mention.image.clone(),
                gold: name(gold),
                ranked: of_mention.iter().map(|(row, ranking)| ((*row).clone(), best(ranking))).collect(),
            });
        }
    }
    Ok(found)
}
