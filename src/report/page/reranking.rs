//! What re-ranking by a language model did: metrics before and after, and how ranks changed (Fig. 9 of the paper).

use serde::Deserialize;

use super::block::{Block, Count, Matrix, Row, Section, Table};
use super::experiment::Summary;
use super::input::From;
use super::results::protocol;
use crate::eval::Metrics;
use crate::kar::RankChanges;

/// The report of `rerank`.
#[derive(Debug, Deserialize)]
pub struct Reranking {
    #[serde(flatten)]
    asked: Asked,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    note: Option<String>,
}

/// What re-ranking did to a ranking.
#[derive(Debug, Deserialize)]
pub struct Asked {
    model: String,
    mentions: usize,
    answered: usize,
    before: Option<Metrics>,
    after: Option<Metrics>,
    changes: RankChanges,
}

/// The section, if something was re-ranked.
pub fn section(rerankings: &[From<Reranking>], experiments: &[From<Summary>]) -> Option<Section> {
    let mut blocks = Vec::new();
    for reranking in rerankings {
        let Reranking { asked, protocol: lists, note } = &reranking.what;
        blocks.push(Block::heading(reranking.short(), &reranking.source()));
        let lists = lists.as_deref().map(|lists| format!(" Lists: {}.", protocol(lists)));
        show(asked, lists.unwrap_or_default(), &mut blocks);
        blocks.extend(note.as_ref().map(Block::text));
    }
    for experiment in experiments {
        for reranked in &experiment.what.reranked {
            let Some(asked) = &reranked.asked else { continue };
            blocks.push(Block::heading(format!("{}, {}", reranked.row, reranked.question), &experiment.source()));
            show(asked, String::new(), &mut blocks);
        }
    }
    let lead = "A language model is asked about the first candidates of each list, and its answer re-ranks them (KAR).";
    (!blocks.is_empty()).then_some(Section { id: "reranking", title: "Re-ranking", lead, blocks })
}

fn show(asked: &Asked, more: String, blocks: &mut Vec<Block>) {
    let Asked { model, mentions, answered, before, after, changes } = asked;
    blocks.push(Block::text(format!("{model}: its answers count for {answered} of {mentions} mentions.{more}")));
    if let (Some(before), Some(after)) = (before, after) {
        let values =
            |m: &Metrics| [m.hits1, m.hits2, m.hits3, m.hits5, m.mean_rank / 100.0, m.reciprocal].map(|x| 100.0 * x);
        let digits = |at: usize| if at == 4 { 3 } else { 2 };
        let plain = |m: &Metrics| values(m).into_iter().enumerate().map(move |(at, x)| format!("{x:.*}", digits(at)));
        let change = values(after).into_iter().zip(values(before)).enumerate();
        let change = change.map(|(at, (after, before))| format!("{:+.*}", digits(at), after - before));
        let rows = vec![Row::new("before", plain(before)), Row::new("after", plain(after)), Row::new("change", change)];
        let header = ["", "H@1 %", "H@2 %", "H@3 %", "H@5 %", "MR", "MRR %"];
        blocks.push(Block::Table(Table::new("Metrics before and after", &header, rows)));
    }
    if !changes.matrix.is_empty() {
        blocks.push(Block::Matrix(matrix(changes)));
    }
}

/// The matrix with shades by the count's share of its row.
fn matrix(changes: &RankChanges) -> Matrix {
    let RankChanges { matrix, behind, improved, degraded } = changes;
    let row = |(before, counts): (usize, &Vec<usize>)| {
        let total = counts.iter().sum::<usize>().max(1) as f64;
        let count = |(after, &count): (usize, &usize)| Count {
            count,
            shade: (5.0 * count as f64 / total).ceil() as usize,
            side: match after.cmp(&before) {
                std::cmp::Ordering::Less => "better",
                std::cmp::Ordering::Equal => "same",
                std::cmp::Ordering::Greater => "worse",
            },
        };
        counts.iter().enumerate().map(count).collect()
    };
    Matrix {
        caption: format!(
            "How many right entities went from which rank (rows) to which (columns): {improved} better, \
             {degraded} worse, {behind} behind the first {}",
            matrix.len()
        ),
        rows: matrix.iter().enumerate().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_and_shades_are_those_of_the_changes() {
        let changes = RankChanges::of(3, &[(1, 1), (1, 2), (2, 1), (2, 1), (3, 3), (9, 9)]);
        let Matrix { caption, rows } = matrix(&changes);
        assert!(caption.contains("2 better, 1 worse, 1 behind the first 3"), "{caption}");
        let shades: Vec<Vec<usize>> = rows.iter().map(|row| row.iter().map(|c| c.shade).collect()).collect();
        assert_eq!(shades, [[3, 3, 0], [5, 0, 0], [0, 0, 5]]);
        assert_eq!((rows[0][1].side, rows[1][0].side, rows[2][2].side), ("worse", "better", "same"));
    }
}
