//! Run files of new rankings.

use std::path::Path;

use serde_json::json;

use super::types::{Reranked, Verdict};
use crate::data::{Dataset, Ranking};
use crate::error::Result;
use crate::files;

/// Writes a run file of new rankings, which is one that [`Run::read`](crate::data::Run::read) reads. The old scores come along as `scores_before`,
/// since they do not order the candidates any more.
pub fn write_run(path: &Path, dataset: &Dataset, rankings: &[Ranking], reranked: &[Reranked]) -> Result<()> {
    let qid = |entity: u32| &dataset.entities()[entity as usize].qid;
    files::write_whole(path, |out| {
        for (ranking, Reranked { order, verdict, .. }) in rankings.iter().zip(reranked) {
            let mut line = json!({
                "mention_id": ranking.mention.id,
                "candidates": order.iter().map(|&at| qid(ranking.candidates[at])).collect::<Vec<_>>(),
                "kar": verdict.label(),
                "gold": ranking.mention.gold.map(qid),
                "rank": ranking.rank(order.iter().copied()),
            });
            if let Some(scores) = &ranking.scores {
                line["scores_before"] = json!(order.iter().map(|&at| scores[at]).collect::<Vec<_>>());
            }
            if let Verdict::Answered { probabilities: Some(probabilities) } = verdict {
                let first = order.iter().take(probabilities.len());
                line["confidence"] = json!(first.map(|&at| probabilities[at]).collect::<Vec<_>>());
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    })
}
