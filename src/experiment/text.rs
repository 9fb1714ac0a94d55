//! The tables of an experiment.

use super::examples::{Example, Ranked};
use super::question::Asked;
use super::rerank::Reranked;
use super::summary::{Summary, SummaryRow};
use crate::eval::statistics;
use crate::printable::printable;
use crate::report::{rank_changes, table};

/// Everything that a summary says, as text.
pub fn experiment_text(summary: &Summary) -> String {
    let mut text = format!("{}\n", summary.title);
    let spread = seeds(&summary.seeds);
    text += &format!("{} test mentions, {}; {spread}\n", summary.mentions, summary.protocol);
    text += &metrics(summary);
    text += &notes(summary);
    for example in &summary.examples {
        text += &shown(example);
    }
    // What makes a row of the table and is missing is said there.
    let shown: Vec<&Reranked> = summary.reranked.iter().filter(|r| r.seed.is_none() || r.asked.is_some()).collect();
    if !shown.is_empty() {
        text += &reranked(&shown);
    }
    printable(&text).into_owned()
}

/// What the figures are means over.
pub(super) fn seeds(seeds: &[u64]) -> String {
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    match seeds.len() {
        1 => format!("seed {} alone, so no spread", seeds[0]),
        _ => format!("seeds {}: mean ± standard deviation", seeds.join(", ")),
    }
}

/// A mention with the best entities of each row.
fn shown(example: &Example) -> String {
    let Example { mention_id, mention, sentence, image, gold, ranked } = example;
    let image = image.as_deref().unwrap_or("no image");
    let text = format!("\n\"{mention}\" in \"{sentence}\" ({mention_id}, {image}): {gold}\n");
    let names = |best: &[Ranked]| best.iter().map(|entity| entity.name.as_str()).collect::<Vec<_>>().join(" | ");
    let rows = ranked.iter().map(|(row, best)| format!("  {row}: {}\n", names(best)));
    text + &rows.collect::<String>()
}

pub(super) fn percent(summary: &statistics::Summary) -> String {
    spread(summary, 100.0, 2)
}

pub(super) fn spread(summary: &statistics::Summary, scale: f64, decimals: usize) -> String {
    let mean = format!("{:.*}", decimals, scale * summary.mean);
    let deviation = summary.deviation.map(|deviation| format!(" ± {:.*}", decimals, scale * deviation));
    mean + &deviation.unwrap_or_default()
}

fn metrics(summary: &Summary) -> String {
    let compared = summary.rows.iter().any(|row| row.difference.is_some());
    let complex = summary.rows.iter().any(|row| row.flops.is_some());
    let beside = summary.rows.iter().any(|row| row.paper.is_some());
    let mut header = vec!["", "H@1 %", "H@2 %", "H@3 %", "MR", "MRR %"];
    let against = format!("MRR to {}", summary.against.as_deref().unwrap_or_default());
    if compared {
        header.extend([against.as_str(), "95 %", "p, corrected"]);
    }
    if complex {
        header.extend(["parameters", "MFLOP"]);
    }
    if beside {
        header.extend(["paper H@1", "paper MRR"]);
    }
    let row = |row: &SummaryRow| {
        let mut cells = vec![row.name.clone()];
        match &row.metrics {
            Some(m) => cells.extend([
                percent(&m.hits1),
                percent(&m.hits2),
                percent(&m.hits3),
                spread(&m.mean_rank, 1.0, 3),
                percent(&m.reciprocal),
            ]),
            None => cells.extend(std::iter::repeat_n("-".to_string(), 5)),
        }
        if compared {
            match &row.difference {
                Some(d) => cells.extend([
                    format!("{:+.2}", 100.0 * d.reciprocal),
                    format!("{:+.2} to {:+.2}", 100.0 * d.interval.low, 100.0 * d.interval.high),
                    probability(d.corrected),
                ]),
                None => cells.extend([String::new(), String::new(), String::new()]),
            }
        }
        if complex {
            cells.push(row.parameters.filter(|_| row.flops.is_some()).map_or(String::new(), |n| n.to_string()));
            cells.push(row.flops.map_or(String::new(), |flops| format!("{:.2}", flops as f64 / 1e6)));
        }
        if beside {
            let value = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.2}"));
            cells.push(value(row.paper.as_ref().and_then(|paper| paper.hits1)));
            let mark = |text: String| match row.paper.as_ref().is_some_and(|paper| paper.impossible.is_some()) {
                true => text + " !",
                false => text,
            };
            cells.push(mark(value(row.paper.as_ref().and_then(|paper| paper.reciprocal))));
        }
        cells
    };
    table(&header, summary.rows.iter().map(row)) + "\n"
}

fn probability(p: f64) -> String {
    if p < 1e-4 { format!("{p:.0e}") } else { format!("{p:.4}") }
}

/// What was chosen, what is missing, and what cannot be right.
fn notes(summary: &Summary) -> String {
    let mut text = String::new();
    for SummaryRow { name, chosen, tried, missing, paper, reranked_by, .. } in &summary.rows {
        if let Some((model, of)) = reranked_by {
            text += &format!("{name}: the rankings of {of}, re-ranked by {model}\n");
        }
        if let Some(chosen) = chosen.as_ref().filter(|_| !tried.is_empty()) {
            let shown = |(label, valid): &(String, Option<f64>)| match valid {
                Some(valid) => format!("{label} {:.2} %", 100.0 * valid),
                None => format!("{label} failed"),
            };
            let tried: Vec<String> = tried.iter().map(shown).collect();
            text += &format!("{name}: {chosen}, by the validation MRR ({})\n", tried.join(", "));
        }
        missing.iter().for_each(|missing| text += &format!("{name}: {missing}\n"));
        if let Some(why) = paper.as_ref().and_then(|paper| paper.impossible.as_ref()) {
            text += &format!("{name}: ! the paper's values cannot be right: {why}\n");
        }
        if let Some(why) = paper.as_ref().and_then(|paper| paper.contradicts.as_ref()) {
            text += &format!("{name}: {why}\n");
        }
    }
    text
}

/// What was asked about which row.
fn subject(Reranked { row, question, seed, .. }: &Reranked) -> String {
    let seed = seed.map(|seed| format!(", seed {seed}"));
    format!("{row}, {question}{}", seed.unwrap_or_default())
}

fn reranked(all: &[&Reranked]) -> String {
    let row = |reranked: &&Reranked| {
        let value = |value: Option<f64>| value.map_or("-".to_string(), |x| format!("{:.2}", 100.0 * x));
        let metrics = |of: fn(&crate::eval::Metrics) -> f64| {
            let asked = reranked.asked.as_ref();
            let (before, after) = (asked.and_then(|a| a.before.as_ref()), asked.and_then(|a| a.after.as_ref()));
            [value(before.map(of)), value(after.map(of))]
        };
        let ([h_before, h_after], [m_before, m_after]) = (metrics(|m| m.hits1), metrics(|m| m.reciprocal));
        vec![subject(reranked), h_before, h_after, m_before, m_after]
    };
    let header = ["re-ranked", "H@1 % before", "after", "MRR % before", "after"];
    let mut text = format!("\n{}\n", table(&header, all.iter().map(row)));
    for reranked in all {
        let subject = subject(reranked);
        if let Some(missing) = &reranked.missing {
            text += &format!("{subject}: {missing}\n");
        }
        let Some(asked) = &reranked.asked else { continue };
        if asked.answered < asked.mentions {
            let Asked { answered, mentions, model, .. } = asked;
            text += &format!(
                "{subject}: the answers of {model} count for {answered} of {mentions} mentions; the others keep their \
                 ranking (report.json says why)\n"
            );
        }
        if let Some(fusion) = &asked.fusion {
            text += &match &fusion.reason {
                Some(reason) => format!("{subject}: the model counts 0, and nothing moves: {reason}\n"),
                None => format!(
                    "{subject}: the model counts {:.3}, fitted on the validation mentions\n",
                    fusion.weights.model
                ),
            };
        }
        if asked.shorter_than_k > 0 {
            text += &format!("{subject}: {} lists are shorter than K\n", asked.shorter_than_k);
        }
        text += &format!("\n{subject}: ranks of the right entities before (rows) and after (columns)\n");
        text += &format!("{}\n", rank_changes(&asked.changes));
    }
    text
}
