//! Metrics of a run file, whoever wrote it: lines of `eval` and `rerank`, or of `link`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::metrics::Metrics;
use crate::data::{Dataset, Mention, Skipped, Tolerance, parse_records, record_error};
use crate::error::{Error, Result};
use crate::files;

/// A line: a ranking as `candidates`, or as the `links` or the `error` of `fissfuse link`. Other fields are ignored.
#[derive(Deserialize)]
struct Record {
    mention_id: Option<String>,
    candidates: Option<Vec<String>>,
    links: Option<Vec<Link>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Link {
    qid: String,
}

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

impl RunMetrics {
    /// Reads the run file at `path` of these mentions of a dataset. The gold entities are the dataset's.
    pub fn read(
        path: &Path,
        dataset: &Dataset,
        mentions: &[Mention],
        tolerance: Tolerance,
        skipped: &mut Skipped,
    ) -> Result<RunMetrics> {
        let by_id: HashMap<&str, &Mention> = mentions.iter().map(|m| (m.id.as_str(), m)).collect();
        let (mut seen, mut ranks) = (HashSet::new(), Vec::new());
        let (mut gold_missing, mut without_gold, mut errors) = (0, 0, 0);
        for (line, record) in parse_records::<Record>(path, &files::read_text_or_stream(path)?) {
            // A mention whose line holds an error has a line.
            let failed = record.as_ref().ok().filter(|record| record.error.is_some());
            if let Some(mention) = failed.and_then(|r| by_id.get(r.mention_id.as_deref()?)) {
                seen.insert(mention.id.as_str());
            }
            let ranking = record
                .and_then(|record| look_up(record, dataset, &by_id).map_err(|reason| record_error(path, line, reason)));
            let ranking = ranking.and_then(|ranking| match &ranking {
                Some((mention, _)) if !seen.insert(mention.id.as_str()) => {
                    Err(record_error(path, line, format!("mention `{}` has a line already", mention.id)))
                }
                _ => Ok(ranking),
            });
            match ranking {
                Err(error) => skipped.take(tolerance, error)?,
                Ok(None) => errors += 1,
                Ok(Some((Mention { gold: None, .. }, _))) => without_gold += 1,
                Ok(Some((Mention { gold: Some(gold), .. }, candidates))) => {
                    let place = candidates.iter().position(|candidate| candidate == gold);
                    gold_missing += place.is_none() as usize;
                    ranks.push((1 + place.unwrap_or(candidates.len()), place.is_some()));
                }
            }
        }
        if ranks.is_empty() {
            return Err(Error::file(path, "holds no ranking of a mention of this split that has a gold entity"));
        }
        let absent = mentions.len() - seen.len();
        Ok(RunMetrics { metrics: Metrics::with_misses(&ranks), gold_missing, without_gold, errors, absent })
    }
}

/// The mention of a line and its candidates, best first; nothing if the line holds an error.
fn look_up<'a>(
    record: Record,
    dataset: &Dataset,
    mentions: &HashMap<&str, &'a Mention>,
) -> Result<Option<(&'a Mention, Vec<u32>)>, String> {
    let Record { mention_id, candidates, links, error } = record;
    if error.is_some() {
        return Ok(None);
    }
    let id = mention_id.ok_or("has no `mention_id`")?;
    let about = |reason: &str| format!("mention `{id}`: {reason}");
    let mention = mentions.get(id.as_str()).ok_or_else(|| {
        about("the dataset's split has no such mention; give the --data and --split that the run was made of")
    })?;
    let qids = candidates.or_else(|| Some(links?.into_iter().map(|link| link.qid).collect()));
    let qids = qids.ok_or_else(|| about("has neither `candidates` nor `links`"))?;
    let (mut listed, mut entities) = (HashSet::new(), Vec::with_capacity(qids.len()));
    for qid in &qids {
        let entity = dataset.entity(qid);
        let entity = entity.ok_or_else(|| about(&format!("`{qid}` is no entity of entities.jsonl")))?;
        if !listed.insert(entity) {
            return Err(about(&format!("`{qid}` is listed twice")));
        }
        entities.push(entity);
    }
    Ok(Some((mention, entities)))
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
        let run = RunMetrics::read(&folder.path().join("run.jsonl"), &dataset, &mentions, tolerance, &mut skipped)?;
        Ok((run, skipped))
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
    fn a_bad_line_is_named_or_skipped() {
        for (bad, says) in [
            (r#"{"mention_id":"z","candidates":[]}"#, "run.jsonl:2: mention `z`: the dataset's split has no such"),
            (r#"{"mention_id":"b","candidates":["Q3"]}"#, "mention `b`: `Q3` is no entity"),
            (r#"{"mention_id":"b","links":[{"qid":"Q1"},{"qid":"Q1"}]}"#, "`Q1` is listed twice"),
            (r#"{"mention_id":"a","candidates":["Q1"]}"#, "mention `a` has a line already"),
            (r#"{"mention_id":"b"}"#, "neither `candidates` nor `links`"),
            (r#"{"candidates":[]}"#, "has no `mention_id`"),
        ] {
            let run = format!("{{\"mention_id\":\"a\",\"candidates\":[\"Q2\"]}}\n{bad}\n");
            let error = read(&run, Tolerance::Strict).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            let (run, skipped) = read(&run, Tolerance::Skip).unwrap();
            assert!(run.metrics.mentions == 1 && skipped.0[0].to_string().contains(says));
        }
        assert!(read("", Tolerance::Strict).unwrap_err().to_string().contains("holds no ranking"));
    }
}
