//! Metrics of evaluations, in a table for each dataset, split and protocol: others are not to be compared.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::block::{Block, Cell, Figure, Row, Section, Table};
use super::chart::{Bar, Bars, label};
use super::input::From;
use crate::error::Result;
use crate::eval::Metrics;

/// A metrics.json, of a model or of a run file.
#[derive(Debug, Deserialize)]
pub struct Evaluation {
    split: String,
    /// Of a model.
    mean: Option<Metrics>,
    /// Of a run file.
    run: Option<OfRun>,
    #[serde(default)]
    per_score: Map<String, Value>,
    baselines: Option<Baselines>,
    protocol: String,
    #[serde(default)]
    epoch: Option<usize>,
    provenance: Option<Provenance>,
}

#[derive(Debug, Deserialize)]
struct OfRun {
    metrics: Metrics,
}

#[derive(Debug, Deserialize)]
struct Baselines {
    /// None where the whole knowledge base was ranked.
    list_order: Option<Metrics>,
    chance: Metrics,
}

#[derive(Debug, Deserialize)]
struct Provenance {
    dataset: String,
}

/// What results must have in common to stand in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Checksum of the dataset.
    pub dataset: String,
    /// The split.
    pub split: String,
    /// What the lists mean.
    pub protocol: String,
}

impl Task {
    /// In words.
    pub fn words(&self) -> String {
        let dataset: String = self.dataset.chars().take(8).collect();
        format!("dataset {dataset}, split {}, {}", self.split, protocol(&self.protocol))
    }
}

/// A protocol in words.
pub fn protocol(name: &str) -> &str {
    match name {
        "gold-in-list" => "the gold entity in every list",
        "as-retrieved" => "lists as retrieved",
        "whole-kb" => "the whole knowledge base ranked",
        "shortlist" => "a first stage's lists of the whole knowledge base",
        other => other,
    }
}

impl Evaluation {
    /// What it is of.
    pub fn task(&self) -> Task {
        let dataset = self.provenance.as_ref().map_or_else(|| "unknown".to_string(), |p| p.dataset.clone());
        Task { dataset, split: self.split.clone(), protocol: self.protocol.clone() }
    }

    /// Its metrics.
    pub fn metrics(&self) -> Metrics {
        self.mean.or(self.run.as_ref().map(|run| run.metrics)).unwrap_or_default()
    }
}

/// The columns of metrics.
pub const HEADER: [&str; 8] = ["Run", "H@1 %", "H@2 %", "H@3 %", "H@5 %", "MR", "MRR %", "Mentions"];

/// A row of metrics; hits with their Wilson intervals.
fn row(name: impl Into<String>, metrics: &Metrics) -> Row {
    let intervals = metrics.intervals().ok();
    let hits = |share: f64, at: usize| match &intervals {
        Some(all) => Cell::with(
            format!("{:.2}", 100.0 * share),
            format!("{:.1} to {:.1}", 100.0 * all[at].1.low, 100.0 * all[at].1.high),
        ),
        None => Cell::from(format!("{:.2}", 100.0 * share)),
    };
    let cells = [hits(metrics.hits1, 0), hits(metrics.hits2, 1), hits(metrics.hits3, 2), hits(metrics.hits5, 4)];
    let rest = [
        format!("{:.3}", metrics.mean_rank),
        format!("{:.2}", 100.0 * metrics.reciprocal),
        metrics.mentions.to_string(),
    ];
    Row::new(name, cells.into_iter().chain(rest.map(Cell::from)))
}

/// The section, if there is an evaluation.
pub fn section(evaluations: &[From<Evaluation>]) -> Result<Option<Section>> {
    let mut tasks: Vec<Task> = Vec::new();
    for task in evaluations.iter().map(|evaluation| evaluation.what.task()) {
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let mut blocks = Vec::new();
    if tasks.len() > 1 {
        blocks.push(Block::warning(
            "The evaluations are of several datasets, splits or protocols. Each has a table of its own; figures of \
             different tables are not to be compared.",
        ));
    }
    for task in tasks {
        let of_task: Vec<&From<Evaluation>> = evaluations.iter().filter(|e| e.what.task() == task).collect();
        let files: Vec<String> = of_task.iter().map(|e| e.source()).collect();
        blocks.push(Block::Heading { text: capital(&task.words()), source: Some(files.join(", ")) });
        let mut rows: Vec<Row> = Vec::new();
        for evaluation in &of_task {
            let remark = evaluation.what.epoch.map(|epoch| format!("epoch {epoch}"));
            rows.push(Row { remark, ..row(evaluation.short(), &evaluation.what.metrics()) });
        }
        if let Some(Baselines { list_order, chance }) = of_task.iter().find_map(|e| e.what.baselines.as_ref()) {
            rows.extend(list_order.iter().map(|metrics| row("the lists’ order", metrics)));
            rows.push(row("chance", chance));
        }
        let caption = "Metrics, with 95 % Wilson intervals of the hits in small print";
        blocks.push(Block::Table(Table::new(caption, &HEADER, rows)));
        for evaluation in of_task.iter().filter(|e| e.what.per_score.len() > 1) {
            blocks.push(Block::Figure(Box::new(by_score(evaluation)?)));
        }
    }
    let lead = "H@k: share of mentions whose right entity is among the first k. MR: mean rank. MRR: mean of 1/rank.";
    Ok((!blocks.is_empty()).then_some(Section { id: "results", title: "Results", lead, blocks }))
}

/// What each score reaches alone.
fn by_score(evaluation: &From<Evaluation>) -> Result<Figure> {
    let parsed = |(name, value): (&String, &Value)| Some((name.clone(), Metrics::deserialize(value).ok()?));
    let scores: Vec<(String, Metrics)> = evaluation.what.per_score.iter().filter_map(parsed).collect();
    let all: Vec<(String, Metrics)> =
        [("mean of all".to_string(), evaluation.what.metrics())].into_iter().chain(scores).collect();
    let bar = |(at, (name, metrics)): (usize, &(String, Metrics))| Bar {
        name: label(name, 24),
        value: 100.0 * metrics.hits1,
        whisker: metrics.intervals().ok().map(|all| (100.0 * all[0].1.low, 100.0 * all[0].1.high)),
        shown: format!("{:.1}", 100.0 * metrics.hits1),
        colour: if at == 0 { 1 } else { 6 },
    };
    let bars = Bars { axis: "H@1, percent".into(), bars: all.iter().enumerate().map(bar).collect() };
    let name = evaluation.short();
    Ok(Figure {
        caption: format!("{name}: what each score reaches alone, with 95 % Wilson intervals"),
        label: format!("Bar chart of H@1 of the mean of all scores, {}, and of each score alone.", bars.bars[0].shown),
        wide: bars.draw(720)?,
        narrow: Some(bars.draw(350)?),
        legend: Vec::new(),
        numbers: Some(Table::new(
            format!("Metrics of {name} by score"),
            &[&["Score"], &HEADER[1..]].concat(),
            all.iter().map(|(name, metrics)| row(name.clone(), metrics)).collect(),
        )),
    })
}

/// A sentence's beginning.
pub fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(dataset: &str, protocol: &str) -> From<Evaluation> {
        let metrics =
            serde_json::json!({"H@1": 0.5, "H@2": 0.6, "H@3": 0.7, "H@5": 1.0, "MR": 2.0, "MRR": 0.6, "mentions": 10});
        let value = serde_json::json!({
            "split": "test", "mean": metrics, "protocol": protocol, "provenance": {"dataset": dataset},
        });
        From { path: "eval/metrics.json".into(), what: serde_json::from_value(value).unwrap() }
    }

    #[test]
    fn what_is_not_to_be_compared_stands_in_tables_of_its_own() {
        let all = [("a", "gold-in-list"), ("a", "as-retrieved"), ("b", "gold-in-list"), ("a", "gold-in-list")];
        let all = all.map(|(dataset, protocol)| evaluation(dataset, protocol));
        let section = section(&all).unwrap().unwrap();
        let tables: Vec<usize> = section
            .blocks
            .iter()
            .filter_map(|block| if let Block::Table(table) = block { Some(table.rows.len()) } else { None })
            .collect();
        assert_eq!(tables, [2, 1, 1]);
        assert!(matches!(section.blocks[0], Block::Warning { .. }));
    }
}
