//! What the head of the page says: what it is made from, and the figures that one looks for first.

use serde::Serialize;

use super::input::Inputs;

/// A figure.
#[derive(Debug, PartialEq, Serialize)]
pub struct Card {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: String,
    /// How sure it is.
    pub below: Option<String>,
}

/// What the page is made from, in words.
pub fn about(inputs: &Inputs) -> String {
    let counts = [
        (inputs.trainings.len(), "training", "trainings"),
        (inputs.pretrainings.len(), "pre-training", "pre-trainings"),
        (inputs.evaluations.len(), "evaluation", "evaluations"),
        (inputs.experiments.len(), "experiment", "experiments"),
        (inputs.rerankings.len(), "re-ranking", "re-rankings"),
        (inputs.measurements.len(), "file of measurements", "files of measurements"),
    ];
    let there = counts.into_iter().filter(|(count, ..)| *count > 0);
    let words: Vec<String> =
        there.map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many })).collect();
    match words.is_empty() {
        true => "Rankings of mentions.".into(),
        false => format!("From {}.", words.join(", ")),
    }
}

/// The figures of the first evaluation.
pub fn cards(inputs: &Inputs) -> Vec<Card> {
    let Some(first) = inputs.evaluations.first() else { return Vec::new() };
    let metrics = first.what.metrics();
    let interval = metrics.intervals().ok().map(|all| all[0].1);
    let card = |name: &str, value: String, below: Option<String>| Card { name: name.into(), value, below };
    let interval = interval.map(|i| format!("95 %: {:.1} to {:.1} %", 100.0 * i.low, 100.0 * i.high));
    vec![
        card("H@1", format!("{:.1} %", 100.0 * metrics.hits1), interval),
        card("MRR", format!("{:.1} %", 100.0 * metrics.reciprocal), None),
        card("Mean rank", format!("{:.2}", metrics.mean_rank), None),
        card("Mentions", metrics.mentions.to_string(), Some(format!("{}, {}", first.short(), first.what.task().split))),
    ]
}
