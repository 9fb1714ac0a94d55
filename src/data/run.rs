//! Run files: what any method makes of the mentions of a dataset, one ranking per line (docs/kar.md).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128;

use super::{Dataset, Mention, Skipped, Tolerance, parse_records, record_error};
use crate::error::{Error, Result};
use crate::files;

/// A line as it stands in the file: a run file's with `candidates`, or one of `fissfuse link` with `links` or an `error`.
/// Other fields are ignored.
#[derive(Deserialize)]
struct Record {
    mention_id: Option<String>,
    error: Option<String>,
    candidates: Option<Vec<String>>,
    #[serde(default)]
    scores: Option<Vec<f32>>,
    links: Option<Vec<Link>>,
}

/// An entity that a mention was linked to.
#[derive(Deserialize)]
struct Link {
    qid: String,
    #[serde(default)]
    score: Option<f32>,
}

impl Record {
    /// The candidates and their scores, if all have one.
    fn ranked(self) -> Result<(Vec<String>, Option<Vec<f32>>), String> {
        match (self.candidates, self.links) {
            (Some(candidates), _) => Ok((candidates, self.scores)),
            (None, Some(links)) => {
                let scores = links.iter().map(|link| link.score).collect();
                Ok((links.into_iter().map(|link| link.qid).collect(), scores))
            }
            (None, None) => Err("missing field `candidates` (or `links`, as `fissfuse link` writes)".into()),
        }
    }
}

/// A mention with its candidates as some method ranked them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// The mention.
    pub mention: Mention,
    /// Indices of entities, best first.
    pub candidates: Vec<u32>,
    /// Score of each candidate, if the method gives scores.
    pub scores: Option<Vec<f32>>,
}

impl Ranking {
    /// Rank of the gold entity among candidates in this order (positions in the list), from 1; behind all of them
    /// if it is none of them, and nothing if the mention has no gold entity.
    pub fn rank(&self, order: impl Iterator<Item = usize>) -> Option<usize> {
        let gold = self.mention.gold?;
        let place = order.map(|at| self.candidates[at]).position(|candidate| candidate == gold);
        Some(1 + place.unwrap_or(self.candidates.len()))
    }

    /// Whether the gold entity is known and is none of the candidates.
    pub fn lacks_gold(&self) -> bool {
        self.mention.gold.is_some_and(|gold| !self.candidates.contains(&gold))
    }
}

/// A line that holds an error in a ranking's place, as `fissfuse link` writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Number of the line, from 1.
    pub line: usize,
    /// The mention, if the line names one.
    pub mention_id: Option<String>,
    /// The error.
    pub error: String,
}

/// What a run file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// One for a mention, in the order of the lines.
    pub rankings: Vec<Ranking>,
    /// Lines without a ranking.
    pub failed: Vec<Failed>,
}

/// A run file's text, read once: what is piped cannot be read again.
pub struct RunFile {
    path: PathBuf,
    text: String,
}

impl RunFile {
    /// Reads it.
    pub fn read(path: &Path) -> Result<RunFile> {
        let text = files::read_text_or_stream(path);
        let text =
            text.map_err(|error| error.if_missing("run files are written by `fissfuse eval`, `link` and `rerank`"))?;
        Ok(RunFile { path: path.to_path_buf(), text })
    }

    /// Tells it from others.
    pub fn checksum(&self) -> String {
        format!("{:032x}", xxh3_128(self.text.as_bytes()))
    }

    /// What each score gives to each candidate, by mention and by the scores' names in the order of the line; of lines that
    /// have scores apart, as `eval` writes them.
    pub fn scores_by_name(&self) -> HashMap<String, Vec<(String, Vec<f32>)>> {
        #[derive(Deserialize)]
        struct Apart {
            mention_id: String,
            by_score: serde_json::Map<String, serde_json::Value>,
        }
        let named = |(name, scores)| Some((name, serde_json::from_value(scores).ok()?));
        let lines = parse_records::<Apart>(&self.path, &self.text).into_iter().filter_map(|(_, line)| line.ok());
        lines.map(|line| (line.mention_id, line.by_score.into_iter().filter_map(named).collect())).collect()
    }

    /// Looks up its identifiers among a dataset's entities and these mentions of it. The gold entities
    /// are the dataset's.
    ///
    /// Fails at the first bad line, or leaves such lines out and lists them: a mention that the data lack or that an
    /// earlier line has, a candidate that is no entity or is listed twice, scores that do not fit the candidates.
    pub fn rankings(
        &self,
        dataset: &Dataset,
        mentions: &[Mention],
        tolerance: Tolerance,
        skipped: &mut Skipped,
    ) -> Result<Run> {
        let RunFile { path, text } = self;
        let by_id: HashMap<&str, &Mention> = mentions.iter().map(|m| (m.id.as_str(), m)).collect();
        let mut line_of: HashMap<String, usize> = HashMap::new();
        let mut run = Run::default();
        for (line, record) in parse_records::<Record>(path, text) {
            let ranking = match record {
                Ok(Record { error: Some(error), mention_id, .. }) => {
                    run.failed.push(Failed { line, mention_id, error });
                    continue;
                }
                record => record.and_then(|record| {
                    let Some(id) = record.mention_id.clone() else {
                        return Err(record_error(path, line, "missing field `mention_id`".to_string()));
                    };
                    let ranking = look_up(record, &id, dataset, &by_id)
                        .map_err(|reason| record_error(path, line, format!("mention `{id}`: {reason}")))?;
                    match line_of.insert(id.clone(), line) {
                        Some(first) => {
                            Err(record_error(path, line, format!("mention `{id}` stands in line {first} already")))
                        }
                        None => Ok(ranking),
                    }
                }),
            };
            match ranking {
                Ok(ranking) => run.rankings.push(ranking),
                Err(error) => skipped.take(tolerance, error)?,
            }
        }
        if run.rankings.is_empty() {
            return Err(Error::file(path, "holds no ranking of a mention of this dataset's split"));
        }
        Ok(run)
    }
}

impl Run {
    /// Reads a run file. See [`RunFile::rankings`].
    pub fn read(
        path: &Path,
        dataset: &Dataset,
        mentions: &[Mention],
        tolerance: Tolerance,
        skipped: &mut Skipped,
    ) -> Result<Run> {
        RunFile::read(path)?.rankings(dataset, mentions, tolerance, skipped)
    }

    /// The rankings, where lines that hold an error are bad lines too: refused, or left out and listed.
    pub fn complete(self, path: &Path, tolerance: Tolerance, skipped: &mut Skipped) -> Result<Vec<Ranking>> {
        for Failed { line, error, .. } in self.failed {
            let reason = format!("holds an error in a ranking's place: {error}");
            skipped.take(tolerance, record_error(path, line, reason))?;
        }
        Ok(self.rankings)
    }
}

fn look_up(record: Record, id: &str, dataset: &Dataset, mentions: &HashMap<&str, &Mention>) -> Result<Ranking, String> {
    let mention = mentions
        .get(id)
        .ok_or("the dataset's split has no such mention; give the --data and --split that the run was made of")?;
    let (candidates, scores) = record.ranked()?;
    let mut seen = HashSet::new();
    let mut indices = Vec::with_capacity(candidates.len());
    for qid in &candidates {
        let index = dataset.entity(qid).ok_or_else(|| format!("candidate `{qid}` is no entity of entities.jsonl"))?;
        if !seen.insert(index) {
            return Err(format!("candidate `{qid}` is listed twice"));
        }
        indices.push(index);
    }
    if let Some(scores) = scores.as_ref().filter(|s| s.len() != indices.len()) {
        return Err(format!("has {} scores for {} candidates", scores.len(), indices.len()));
    }
    Ok(Ranking { mention: (*mention).clone(), candidates: indices, scores })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    const ENTITIES: &str = "{\"qid\":\"Q1\",\"name\":\"one\"}\n{\"qid\":\"Q2\",\"name\":\"two\"}\n";
    const MENTIONS: &str = r#"{"mention_id":"a","mention":"x","sentence":"x y","gold":"Q2"}
{"mention_id":"b","mention":"x","sentence":"x z"}
"#;

    fn read(run: &str, tolerance: Tolerance) -> Result<(Run, Skipped)> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("entities.jsonl", ENTITIES);
        write("test.jsonl", MENTIONS);
        write("run.jsonl", run);
        let mut skipped = Skipped::default();
        let dataset = Dataset::open(folder.path(), tolerance, &mut skipped)?;
        let mentions = dataset.mentions(Split::Test, &mut skipped)?;
        let run = Run::read(&folder.path().join("run.jsonl"), &dataset, &mentions, tolerance, &mut skipped)?;
        Ok((run, skipped))
    }

    #[test]
    fn three_fields_suffice_and_others_are_ignored() {
        let run = r#"{"mention_id":"b","candidates":[],"by_score":{"S1T":[1]}}
{"mention_id":"a","candidates":["Q2","Q1"],"scores":[0.5,-1e3],"gold":"Q1"}"#;
        let rankings = read(run, Tolerance::Strict).unwrap().0.rankings;
        assert_eq!((rankings[0].mention.id.as_str(), rankings[0].candidates.len()), ("b", 0));
        assert_eq!(rankings[1].candidates, [1, 0]);
        assert_eq!(rankings[1].scores.as_deref(), Some(&[0.5, -1e3][..]));
        // The gold entity is the dataset's.
        assert_eq!((rankings[1].rank([0, 1].into_iter()), rankings[0].rank([].into_iter())), (Some(1), None));
        assert_eq!(rankings[1].rank([1, 0].into_iter()), Some(2));
    }

    #[test]
    fn what_link_writes_is_a_ranking() {
        let run = r#"{"mention_id":"a","mention":"x","links":[{"qid":"Q2","name":"two","score":0.5,"confidence":0.9},{"qid":"Q1","score":-1}]}
{"mention_id":"b","links":[{"qid":"Q1"}]}"#;
        let rankings = read(run, Tolerance::Strict).unwrap().0.rankings;
        assert_eq!((&rankings[0].candidates[..], rankings[0].scores.as_deref()), (&[1, 0][..], Some(&[0.5, -1.0][..])));
        assert_eq!((&rankings[1].candidates[..], &rankings[1].scores), (&[0][..], &None));
    }

    #[test]
    fn errors_in_a_rankings_place_are_told_apart() {
        let run = r#"{"mention_id":"a","candidates":["Q1"]}
{"mention_id":null,"error":"lines:2: is no valid record"}
{"mention_id":"b","error":"no image"}"#;
        let (run, _) = read(run, Tolerance::Strict).unwrap();
        let failed: Vec<_> = run.failed.iter().map(|f| (f.line, f.mention_id.as_deref(), f.error.as_str())).collect();
        assert_eq!(failed, [(2, None, "lines:2: is no valid record"), (3, Some("b"), "no image")]);
        assert_eq!(run.rankings.len(), 1);
    }

    #[test]
    fn a_bad_line_is_named_or_skipped() {
        for (bad, says) in [
            (r#"{"mention_id":"c","candidates":["Q1"]}"#, "run.jsonl:2: mention `c`: the dataset's split has no such"),
            (r#"{"mention_id":"b","candidates":["Q3"]}"#, "mention `b`: candidate `Q3` is no entity"),
            (r#"{"mention_id":"b","candidates":["Q1","Q1"]}"#, "candidate `Q1` is listed twice"),
            (r#"{"mention_id":"b","candidates":["Q1"],"scores":[1,2]}"#, "2 scores for 1 candidates"),
            (r#"{"mention_id":"b","candidates":["Q1"],"scores":[1e39]}"#, "number out of range"),
            (r#"{"mention_id":"b","candidates":["Q1"],"scores":[null]}"#, "is no valid record"),
            (r#"{"mention_id":"a","candidates":["Q1"]}"#, "mention `a` stands in line 1 already"),
            (r#"{"mention_id":"b"}"#, "missing field `candidates`"),
            (r#"{"candidates":["Q1"]}"#, "run.jsonl:2: missing field `mention_id`"),
        ] {
            let run = format!("{{\"mention_id\":\"a\",\"candidates\":[\"Q1\"]}}\n{bad}\n");
            let error = read(&run, Tolerance::Strict).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            let (Run { rankings, .. }, skipped) = read(&run, Tolerance::Skip).unwrap();
            assert!(rankings.len() == 1 && rankings[0].lacks_gold() && skipped.0[0].to_string().contains(says));
        }
        assert!(read("", Tolerance::Strict).unwrap_err().to_string().contains("holds no ranking"));
    }
}
