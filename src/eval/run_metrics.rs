//! Metrics of a run file, whoever wrote it: lines of `eval` and `rerank`, or of `link`.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;

use super::metrics::Metrics;
use crate::data::{Dataset, Mention, Protocol, Ranking, Run, Skipped, Tolerance};
use crate::error::{Error, Result};

/// Metrics of a run and what they leave out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RunMetrics {
    /// Of the rankings whose mention has a gold entity.
    pub metrics: Metrics,
    /// Of these, rankings without the gold entity: it counts as ranked behind all that they list.
    pub gold_missing: usize,
    /// Rankings left out because the dataset knows no gold entity of the mention.
    pub without_gold: usize,
    /// Lines left out because they hold an error in the ranking's place.
    pub errors: usize,
    /// Mentions of the split that have no line.
    pub absent: usize,
}

/// Where a run ranks the gold entities of a split's mentions.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRanks {
    /// Mentions that have a gold entity and a ranking, by their identifiers, in the order of the lines.
    pub ranks: Vec<(String, GoldRank)>,
    /// As [`RunMetrics::without_gold`].
    pub without_gold: usize,
    /// As [`RunMetrics::errors`].
    pub errors: usize,
    /// As [`RunMetrics::absent`].
    pub absent: usize,
}

/// Where a gold entity stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoldRank {
    /// Its rank, from 1; behind all that are listed where it is not among them.
    pub rank: usize,
    /// Whether it is listed.
    pub found: bool,
}

impl RunRanks {
    /// Reads the run file at `path` of these mentions of a dataset. The gold entities are the dataset's.
    pub fn read(
        path: &Path,
        dataset: &Dataset,
        mentions: &[Mention],
        tolerance: Tolerance,
        skipped: &mut Skipped,
    ) -> Result<RunRanks> {
        let Run { rankings, failed } = Run::read(path, dataset, mentions, tolerance, skipped)?;
        let seen: HashSet<_> = rankings.iter().map(|ranking| ranking.mention.id.as_str()).collect();
        let named = failed.iter().filter_map(|failed| failed.mention_id.as_deref());
        let seen: HashSet<_> = seen.into_iter().chain(named).collect();
        let absent = mentions.iter().filter(|mention| !seen.contains(mention.id.as_str())).count();
        let rank = |ranking: &Ranking| {
            let rank = ranking.rank(0..ranking.candidates.len())?;
            Some((ranking.mention.id.clone(), GoldRank { rank, found: !ranking.lacks_gold() }))
        };
        let ranks: Vec<_> = rankings.iter().filter_map(rank).collect();
        if ranks.is_empty() {
            return Err(Error::file(path, "holds no ranking of a mention of this split that has a gold entity"));
        }
        Ok(RunRanks { without_gold: rankings.len() - ranks.len(), errors: failed.len(), absent, ranks })
    }

    /// Rankings without their gold entity.
    pub fn gold_missing(&self) -> usize {
        self.ranks.iter().filter(|(_, gold)| !gold.found).count()
    }

    /// What the lists mean.
    pub fn protocol(&self) -> Protocol {
        Protocol::of(self.gold_missing())
    }

    /// The metrics of all these ranks.
    pub fn metrics(&self) -> RunMetrics {
        RunMetrics {
            metrics: GoldRank::metrics(self.ranks.iter().map(|(_, gold)| gold)),
            gold_missing: self.gold_missing(),
            without_gold: self.without_gold,
            errors: self.errors,
            absent: self.absent,
        }
    }
}

impl GoldRank {
    /// Metrics of ranks.
    pub fn metrics<'a>(ranks: impl Iterator<Item = &'a GoldRank>) -> Metrics {
        Metrics::with_misses(&ranks.map(|gold| (gold.rank, gold.found)).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    fn read(run: &str, tolerance: Tolerance) -> Result<(RunMetrics, Skipped)> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("entities.jsonl", "{\"qid\":\"Q1\",\"name\":\"1\"}\n{\"qid\":\"Q2\",\"name\":\"2\"}\n");
        let mention = |id: &str, gold: &str| format!(r#"{{"mention_id":"{id}","mention":"x","sentence":"x"{gold}}}"#);
        let gold = r#","gold":"Q2""#;
        let mentions = ["a", "b", "c", "d", "e"].map(|id| mention(id, if id == "d" { "" } else { gold }));
        write("test.jsonl", &mentions.join("\n"));
        write("run.jsonl", run);
        let mut skipped = Skipped::default();
        let dataset = Dataset::open(folder.path(), tolerance, &mut skipped)?;
        let mentions = dataset.mentions(Split::Test, &mut skipped)?;
        let run = RunRanks::read(&folder.path().join("run.jsonl"), &dataset, &mentions, tolerance, &mut skipped)?;
        Ok((run.metrics(), skipped))
    }

    #[test]
    fn rankings_links_and_errors_are_told_apart() {
        let run = r#"{"mention_id":"a","candidates":["Q1","Q2"],"gold":"Q1"}
{"mention_id":"b","mention":"x","links":[{"qid":"Q2","score":1.0}]}
{"mention_id":"c","links":[{"qid":"Q1"}]}
{"mention_id":"d","candidates":["Q1"]}
{"mention_id":null,"error":"run.jsonl:5: is no valid record"}"#;
        let (got, _) = read(run, Tolerance::Strict).unwrap();
        let metrics = Metrics::with_misses(&[(2, true), (1, true), (2, false)]);
        assert_eq!(got, RunMetrics { metrics, gold_missing: 1, without_gold: 1, errors: 1, absent: 1 });
    }

    #[test]
    fn a_run_without_a_known_answer_has_no_metrics() {
        let error = read(r#"{"mention_id":"d","candidates":["Q1"]}"#, Tolerance::Strict).unwrap_err();
        assert!(error.to_string().contains("that has a gold entity"), "{error}");
    }
}
