//! Tables and bars of experiments, from their summary.json.

use serde::Deserialize;

use super::block::{Block, Cell, Figure, Row, Section, Table};
use super::chart::{Bar, Bars, label};
use super::input::From;
use super::reranking::Asked;
use super::results::{Task, capital, protocol};
use crate::error::Result;
use crate::eval::statistics;
use crate::report::Printed;

/// A summary.json. Those of earlier versions lack some of it.
#[derive(Debug, Deserialize)]
pub struct Summary {
    /// Title of the experiment.
    pub title: String,
    /// Checksum of the dataset.
    #[serde(default)]
    pub dataset: String,
    /// What the lists mean.
    #[serde(default)]
    pub protocol: String,
    #[serde(default)]
    mentions: usize,
    seeds: Vec<u64>,
    /// The row that the others are compared with.
    pub against: Option<String>,
    #[serde(default)]
    paper: Option<u8>,
    /// Rows.
    pub rows: Vec<SummaryRow>,
    /// Mentions that the row `against` alone links rightly.
    #[serde(default)]
    pub examples: Vec<super::examples::OfSummary>,
    /// What re-ranking did.
    #[serde(default)]
    pub reranked: Vec<Reranked>,
}

/// A row.
#[derive(Debug, Deserialize)]
pub struct SummaryRow {
    /// Its name.
    pub name: String,
    #[serde(default)]
    chosen: Option<String>,
    /// Its metrics, if it is computed.
    #[serde(default)]
    pub metrics: Option<Spread>,
    #[serde(default)]
    difference: Option<Difference>,
    /// Trained parameters.
    #[serde(default)]
    pub parameters: Option<u64>,
    /// FLOPs of one mention with 10 candidates.
    #[serde(default)]
    pub flops: Option<u64>,
    #[serde(default)]
    paper: Option<Printed>,
    #[serde(default)]
    missing: Vec<String>,
}

/// Metrics over seeds.
#[derive(Debug, Deserialize)]
pub struct Spread {
    /// H@1.
    #[serde(rename = "H@1")]
    pub hits1: statistics::Summary,
    #[serde(rename = "H@2")]
    hits2: statistics::Summary,
    #[serde(rename = "H@3")]
    hits3: statistics::Summary,
    #[serde(rename = "MR")]
    mean_rank: statistics::Summary,
    /// Mean reciprocal rank.
    #[serde(rename = "MRR")]
    pub reciprocal: statistics::Summary,
}

#[derive(Debug, Deserialize)]
struct Difference {
    reciprocal: f64,
    interval: statistics::Interval,
    #[serde(default)]
    corrected: f64,
}

/// A row that was re-ranked.
#[derive(Debug, Deserialize)]
pub struct Reranked {
    /// The row.
    pub row: String,
    /// What was asked.
    pub question: String,
    /// What came of it.
    pub asked: Option<Asked>,
}

/// The section, if there is an experiment.
pub fn section(experiments: &[From<Summary>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    let task = |summary: &Summary| Task {
        dataset: summary.dataset.clone(),
        split: "test".into(),
        protocol: summary.protocol.clone(),
    };
    let first = experiments.first().map(|experiment| task(&experiment.what));
    if experiments.iter().any(|experiment| Some(task(&experiment.what)) != first) {
        blocks.push(Block::warning(
            "The experiments are of several datasets or protocols. Figures of different ones are not to be compared.",
        ));
    }
    for experiment in experiments {
        let summary = &experiment.what;
        blocks.push(Block::heading(&summary.title, &experiment.source()));
        let seeds: Vec<String> = summary.seeds.iter().map(u64::to_string).collect();
        let spread = match seeds.len() {
            1 => format!("seed {} alone, so without spread", seeds[0]),
            _ => format!("mean ± standard deviation over seeds {}", seeds.join(", ")),
        };
        let dataset: String = summary.dataset.chars().take(8).collect();
        let (mentions, meaning) = (summary.mentions, protocol(&summary.protocol));
        blocks.push(Block::text(capital(&format!(
            "{mentions} test mentions of dataset {dataset}, {meaning}; {spread}."
        ))));
        blocks.push(Block::Table(table(summary)));
        if summary.rows.iter().filter(|row| row.metrics.is_some()).count() > 1 {
            blocks.push(Block::Figure(Box::new(levels(summary)?)));
        }
        if summary.rows.iter().any(|row| row.difference.is_some()) {
            blocks.push(Block::Figure(Box::new(differences(summary)?)));
        }
    }
    let lead = "All rows of an experiment are trained on the same features, and judged on the same mentions.";
    Ok((!blocks.is_empty()).then_some(Section { id: "experiments", title: "Experiments", lead, blocks }))
}

fn table(summary: &Summary) -> Table {
    let compared = summary.rows.iter().any(|row| row.difference.is_some());
    let beside = summary.rows.iter().any(|row| row.paper.is_some());
    let against = summary.against.as_deref().unwrap_or("the first row");
    let to = format!("MRR less {against}");
    let number = summary.paper.map(|number| format!(", Table {number}")).unwrap_or_default();
    let mut header = vec!["Row", "H@1 %", "H@2 %", "H@3 %", "MR", "MRR %"];
    if compared {
        header.extend([to.as_str(), "p, corrected"]);
    }
    if beside {
        header.extend(["Paper’s H@1 %", "Paper’s MRR %"]);
    }
    let row = |row: &SummaryRow| {
        let mut cells: Vec<Cell> = match &row.metrics {
            Some(m) => vec![
                value(&m.hits1, 100.0, 2),
                value(&m.hits2, 100.0, 2),
                value(&m.hits3, 100.0, 2),
                value(&m.mean_rank, 1.0, 3),
                value(&m.reciprocal, 100.0, 2),
            ],
            None => vec!["–".into(); 5],
        };
        if compared {
            cells.extend(match &row.difference {
                Some(d) => [
                    Cell::with(
                        format!("{:+.2}", 100.0 * d.reciprocal),
                        format!("{:+.2} to {:+.2}", 100.0 * d.interval.low, 100.0 * d.interval.high),
                    ),
                    probability(d.corrected).into(),
                ],
                None => ["".into(), "".into()],
            });
        }
        if beside {
            let paper = row.paper.as_ref();
            let mark = if paper.is_some_and(|paper| paper.impossible.is_some()) { " (impossible)" } else { "" };
            let printed = |x: Option<f64>| x.map_or("".to_string(), |x| format!("{x:.2}{mark}"));
            cells.push(printed(paper.and_then(|paper| paper.hits1)).into());
            cells.push(printed(paper.and_then(|paper| paper.reciprocal)).into());
        }
        let remarks: Vec<&str> = row.chosen.iter().chain(&row.missing).map(String::as_str).collect();
        let remark = (!remarks.is_empty()).then(|| remarks.join("; "));
        let marked = summary.against.as_ref() == Some(&row.name);
        Row { remark, cells, marked, head: row.name.clone() }
    };
    let caption = match (compared, beside) {
        (true, true) => {
            format!("Rows, their difference to {against} with its 95 % interval, and the paper’s values{number}")
        }
        (true, false) => format!("Rows, and their difference to {against} with its 95 % interval"),
        (false, true) => format!("Rows, and the paper’s values{number}"),
        (false, false) => "Rows".to_string(),
    };
    Table::new(caption, &header, summary.rows.iter().map(row).collect())
}

/// A mean with its standard deviation below.
fn value(summary: &statistics::Summary, scale: f64, decimals: usize) -> Cell {
    let mean = format!("{:.decimals$}", scale * summary.mean);
    match summary.deviation {
        Some(deviation) => Cell::with(mean, format!("± {:.decimals$}", scale * deviation)),
        None => mean.into(),
    }
}

fn probability(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") }
}

/// The MRR of each row.
fn levels(summary: &Summary) -> Result<Figure> {
    let bar = |row: &SummaryRow| {
        let reciprocal = row.metrics.as_ref()?.reciprocal;
        let spread = |deviation: f64| (100.0 * (reciprocal.mean - deviation), 100.0 * (reciprocal.mean + deviation));
        Some(Bar {
            name: label(&row.name, 32),
            value: 100.0 * reciprocal.mean,
            whisker: reciprocal.deviation.map(spread),
            shown: format!("{:.1}", 100.0 * reciprocal.mean),
            colour: if summary.against.as_ref() == Some(&row.name) { 1 } else { 6 },
        })
    };
    let bars = Bars { axis: "MRR, percent".into(), bars: summary.rows.iter().filter_map(bar).collect() };
    let spread = if summary.seeds.len() > 1 { "; whiskers are a standard deviation over the seeds" } else { "" };
    figure(format!("MRR of each row{spread}"), "MRR in percent of each row", bars)
}

/// How far each row is from the one that it is compared with.
fn differences(summary: &Summary) -> Result<Figure> {
    let bar = |row: &SummaryRow| {
        let Difference { reciprocal, interval, .. } = row.difference.as_ref()?;
        Some(Bar {
            name: label(&row.name, 32),
            value: 100.0 * reciprocal,
            whisker: Some((100.0 * interval.low, 100.0 * interval.high)),
            shown: format!("{:+.1}", 100.0 * reciprocal),
            colour: if *reciprocal < 0.0 { 4 } else { 3 },
        })
    };
    let against = summary.against.as_deref().unwrap_or("the row compared with");
    let bars = Bars { axis: "difference of MRR, points".into(), bars: summary.rows.iter().filter_map(bar).collect() };
    let caption = format!("What each row loses or gains in MRR beside {against}, with 95 % bootstrap intervals");
    figure(caption, "Difference of MRR of each row", bars)
}

/// Bars with their numbers.
fn figure(caption: String, what: &str, bars: Bars) -> Result<Figure> {
    let whisker = |bar: &Bar| bar.whisker.map_or(String::new(), |(low, high)| format!("{low:.2} to {high:.2}"));
    let row = |bar: &Bar| Row::new(bar.name.clone(), [format!("{:.2}", bar.value), whisker(bar)]);
    let shown: Vec<String> = bars.bars.iter().map(|bar| format!("{} {}", bar.name, bar.shown)).collect();
    Ok(Figure {
        label: format!("Bar chart. {what}: {}.", shown.join(", ")),
        wide: bars.draw(720)?,
        narrow: Some(bars.draw(350)?),
        legend: Vec::new(),
        numbers: Some(Table::new(what, &["Row", &capital(&bars.axis), "Whisker"], bars.bars.iter().map(row).collect())),
        caption,
    })
}
