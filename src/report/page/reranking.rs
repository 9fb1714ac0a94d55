//! What re-ranking by a language model did: metrics before and after, and how ranks changed (Fig. 9 of the paper).

use serde::Deserialize;

use super::block::{Block, Count, RankMatrix, Row, Section, Table};
use super::experiment::Summary;
use super::input::From;
use super::results::protocol;
use crate::eval::Metrics;
use crate::kar::{AtLetter, Fusion, RankChanges, Sample};

/// The report of `rerank`.
#[derive(Debug, Deserialize)]
pub struct Reranking {
    #[serde(flatten)]
    asked: Asked,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    by_letter: Vec<AtLetter>,
    #[serde(default)]
    debias_sample: Option<Sample>,
    #[serde(default)]
    fusion: Option<Fusion>,
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
        let Reranking { asked, protocol: lists, note, .. } = &reranking.what;
        blocks.push(Block::heading(reranking.short(), &reranking.source()));
        let lists = lists.as_deref().map(|lists| format!(" Lists: {}.", protocol(lists)));
        show(asked, lists.unwrap_or_default(), &mut blocks);
        blocks.extend(note.as_ref().map(Block::text));
        explain(&reranking.what, &mut blocks);
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

/// What the model itself chose, and how it was weighed.
fn explain(Reranking { by_letter, debias_sample, fusion, .. }: &Reranking, blocks: &mut Vec<Block>) {
    if let Some(Fusion { mentions, fitted, weights, reason, hits1, reciprocal, .. }) = fusion {
        let weighed = match reason {
            Some(reason) => format!("counts 0, and the ranking stays: {reason}"),
            None => format!("counts {:.3} of its log-probabilities", weights.model),
        };
        blocks.push(Block::text(format!(
            "The ranking's and the model's evidence are added by weights that were fitted on {fitted} of {mentions} other \
             mentions; the model {weighed}. Expected of it, with a 95 % interval: H@1 {} %, MRR {} %.",
            hits1.shown(100.0, 2),
            reciprocal.shown(100.0, 2)
        )));
    }
    if let Some(sample) = debias_sample.as_ref().filter(|sample| sample.is_mostly_letters()) {
        let [letter, option] = [sample.by_letter, sample.by_option].map(|share| 100.0 * share);
        blocks.push(Block::warning(format!(
            "Letters explain {letter:.1} % of what the model says, options {option:.1} %: what is left is mostly noise."
        )));
    }
    if !by_letter.is_empty() {
        let row = |AtLetter { letter, right, found, chosen }: &AtLetter| {
            let share = if *right > 0 { format!("{:.1}", 100.0 * *found as f64 / *right as f64) } else { "-".into() };
            Row::new(*letter, [right.to_string(), found.to_string(), share, chosen.to_string()])
        };
        let caption = "What the model itself chose, before anything was divided out or added: how often the right entity \
                       stood at a letter, was found there, and how often the letter was chosen";
        let header = ["letter", "right there", "found", "%", "chosen"];
        blocks.push(Block::Table(Table::new(caption, &header, by_letter.iter().map(row).collect())));
    }
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
fn matrix(changes: &RankChanges) -> RankMatrix {
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
    RankMatrix {
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
    fn what_the_model_chose_and_how_it_was_weighed_is_shown() {
        let gain = |mean: f64| serde_json::json!({"mean": mean, "interval": {"low": mean - 0.01, "high": mean + 0.01}});
        let spent = serde_json::json!({"calls": 450, "from_journal": 0, "calls_saved": 0, "prompt_tokens": 0,
            "computed_tokens": 0, "new_tokens": 0, "seconds": 1.0});
        let mut report = serde_json::json!({
            "model": "m", "mentions": 1000, "answered": 612, "before": null, "after": null,
            "changes": {"matrix": [], "behind": 0, "improved": 0, "degraded": 0},
            "by_letter": [{"letter": "A", "right": 211, "found": 110, "chosen": 294},
                {"letter": "B", "right": 0, "found": 0, "chosen": 253}],
            "debias_sample": {"mentions": 31, "by_letter": 0.962, "by_option": 0.001, "reciprocal": null, "judged": 0},
            "fusion": {"mentions": 500, "fitted": 450, "folds": 5, "reason": null, "likelihood": gain(0.1),
                "weights": {"ranker": 1.5, "model": 0.25, "letters": [0.5, -0.5], "scored": true},
                "hits1": gain(0.02), "reciprocal": gain(0.03), "spent": spent},
        });
        let shown = |report: &serde_json::Value| {
            let what: Reranking = serde_json::from_value(report.clone()).unwrap();
            let path = "kar.json".into();
            serde_json::to_string(&section(&[From { path, what }], &[]).unwrap().blocks).unwrap()
        };
        let page = shown(&report);
        for says in [
            "450 of 500 other mentions; the model counts 0.250 of its",
            "H@1 +2.00 (+1.00 to +3.00) %, MRR +3.00",
            "Letters explain 96.2 % of what the model says, options 0.1 %",
            r#"{"text":"211","below":null},{"text":"110","below":null},{"text":"52.1","below":null},{"text":"294""#,
            r#"{"text":"-","below":null},{"text":"253""#,
        ] {
            assert!(page.contains(says), "{page} lacks {says}");
        }
        report["fusion"]["reason"] = "it knows nothing".into();
        assert!(shown(&report).contains("counts 0, and the ranking stays: it knows nothing"));
        // Reports of before have none of it.
        for name in ["by_letter", "debias_sample", "fusion"] {
            report.as_object_mut().unwrap().remove(name);
        }
        let page = shown(&report);
        assert!(!page.contains("Letters") && !page.contains("weights") && !page.contains("chosen"), "{page}");
    }

    #[test]
    fn sides_and_shades_are_those_of_the_changes() {
        let changes = RankChanges::of(3, &[(1, 1), (1, 2), (2, 1), (2, 1), (3, 3), (9, 9)]);
        let RankMatrix { caption, rows } = matrix(&changes);
        assert!(caption.contains("2 better, 1 worse, 1 behind the first 3"), "{caption}");
        let shades: Vec<Vec<usize>> = rows.iter().map(|row| row.iter().map(|c| c.shade).collect()).collect();
        assert_eq!(shades, [[3, 3, 0], [5, 0, 0], [0, 0, 5]]);
        assert_eq!((rows[0][1].side, rows[1][0].side, rows[2][2].side), ("worse", "better", "same"));
    }
}
