//! The run file of an evaluation (docs/kar.md).

use std::path::Path;

use serde_json::json;

use super::ranking::Evaluation;
use crate::data::{Dataset, Sample};
use crate::error::Result;
use crate::files;

/// One line per mention: its candidates best first with their scores, the gold entity and its rank.
pub fn write_run(path: &Path, dataset: &Dataset, samples: &[Sample], evaluation: &Evaluation) -> Result<()> {
    let qid = |sample: &Sample, at: usize| &dataset.entities()[sample.candidates[at] as usize].qid;
    files::write_whole(path, |out| {
        for (sample, ranked) in samples.iter().zip(&evaluation.ranked) {
            let n = sample.candidates.len();
            let by_score: serde_json::Map<String, serde_json::Value> = evaluation
                .per_score
                .iter()
                .enumerate()
                .map(|(k, (kind, _))| {
                    let scores: Vec<f32> = ranked.order.iter().map(|&at| ranked.scores[k * n + at]).collect();
                    (kind.to_string(), json!(scores))
                })
                .collect();
            let line = json!({
                "mention_id": sample.id,
                "candidates": ranked.order.iter().map(|&at| qid(sample, at)).collect::<Vec<_>>(),
                "scores": ranked.order.iter().map(|&at| ranked.similarity[at]).collect::<Vec<_>>(),
                "by_score": by_score,
                "gold": sample.gold.map(|at| qid(sample, at as usize)),
                "rank": ranked.rank,
            });
            writeln!(out, "{line}")?;
        }
        Ok(())
    })
}
