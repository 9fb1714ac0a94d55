//! A training's log: its losses, and its metrics on the validation mentions.

use serde::Deserialize;

use super::block::{Block, Figure, Row, Section, Table};
use super::chart::{Line, Size};
use super::epochs::{Log, figure, line, percents, pieces, plot, range};
use super::input::From;
use crate::error::Result;
use crate::eval::Metrics;

/// A training's log.
pub type Training = Log<Epoch>;

/// A line of the log. A loss that is no number is `null` there.
#[derive(Debug, Deserialize)]
pub struct Epoch {
    epoch: usize,
    loss: Option<f64>,
    losses: Vec<(String, Option<f64>)>,
    valid: Option<Metrics>,
    #[serde(default)]
    best: bool,
    #[serde(default)]
    samples_per_second: Option<f64>,
}

/// Sizes of one of several charts side by side, on a screen with room and on a phone.
const PANEL: Size = (230, 170);
const SMALL_PANEL: Size = (150, 140);

impl super::epochs::Epoch for Epoch {
    const OF: &'static str = "a training's log";

    fn number(&self) -> usize {
        self.epoch
    }
}

/// The epochs whose loss is no finite number.
fn not_finite(epochs: &[Epoch]) -> Vec<usize> {
    let finite = |loss: &Option<f64>| loss.is_some_and(f64::is_finite);
    let bad = |e: &&Epoch| !finite(&e.loss) || e.losses.iter().any(|(_, loss)| !finite(loss));
    epochs.iter().filter(bad).map(|e| e.epoch).collect()
}

/// The section, if there is a log.
pub fn section(trainings: &[From<Training>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for training in trainings {
        blocks.push(Block::heading(training.short(), &training.source()));
        let epochs = &training.what.epochs;
        blocks.extend(training.what.cut_short());
        let bad: Vec<String> = not_finite(epochs).iter().map(usize::to_string).collect();
        if !bad.is_empty() {
            let which = if bad.len() == 1 { "epoch" } else { "epochs" };
            blocks.push(Block::warning(format!(
                "A loss is not finite at {which} {}: its line has a gap there.",
                bad.join(", ")
            )));
        }
        if let Some(best) = epochs.iter().rev().find(|epoch| epoch.best) {
            blocks.push(Block::text(match best.valid {
                Some(valid) => format!(
                    "{} epochs. The model of epoch {} is kept: validation MRR {:.2} %.",
                    epochs.len(),
                    best.epoch,
                    100.0 * valid.reciprocal
                ),
                None => format!("{} epochs without validation; the last model is kept.", epochs.len()),
            }));
        }
        blocks.push(Block::Figure(Box::new(total(epochs)?)));
        if epochs.iter().any(|epoch| epoch.losses.len() > 1) {
            blocks.push(apart(epochs)?);
        }
        if epochs.iter().any(|epoch| epoch.valid.is_some()) {
            blocks.push(Block::Figure(Box::new(validation(epochs)?)));
        }
    }
    let lead = "The loss is the mean over an epoch's mentions of the sum of the scores' cross-entropies (Eq. 12).";
    Ok((!blocks.is_empty()).then_some(Section { id: "training", title: "Training", lead, blocks }))
}

/// The whole loss.
fn total(epochs: &[Epoch]) -> Result<Figure> {
    let lines = vec![line(epochs, 1, None, |epoch| epoch.loss)];
    let range = range(&lines, true);
    let draw = plot(epochs, "loss, nats", range, lines);
    let losses: Vec<&String> = epochs.first().into_iter().flat_map(|e| &e.losses).map(|(name, _)| name).collect();
    let header: Vec<&str> = ["Epoch", "Loss"].into_iter().chain(losses.iter().map(|name| name.as_str())).collect();
    let header = [&header[..], &["Mentions/s"]].concat();
    let value = |loss: &Option<f64>| loss.filter(|l| l.is_finite()).map_or("not finite".into(), |l| format!("{l:.4}"));
    let row = |epoch: &Epoch| {
        let speed = epoch.samples_per_second.map_or("–".into(), |speed| format!("{speed:.0}"));
        let cells = [value(&epoch.loss)].into_iter().chain(epoch.losses.iter().map(|(_, loss)| value(loss)));
        Row::new(epoch.epoch.to_string(), cells.chain([speed]))
    };
    let [first, last] = [epochs.first(), epochs.last()].map(|e| e.map_or("none".into(), |e| value(&e.loss)));
    let numbers = Table::new("Training loss, and its part by each score", &header, epochs.iter().map(row).collect());
    let label = format!("Line chart of the training loss over {} epochs, from {first} to {last}.", epochs.len());
    figure("Training loss over epochs", label, draw, numbers)
}

/// The loss of each score by itself, all on one scale.
fn apart(epochs: &[Epoch]) -> Result<Block> {
    let names: Vec<&String> = epochs.iter().flat_map(|e| &e.losses).map(|(name, _)| name).collect();
    let mut distinct: Vec<&String> = Vec::new();
    names.into_iter().for_each(|name| {
        if !distinct.contains(&name) {
            distinct.push(name)
        }
    });
    let of = |wanted: &str| {
        let value = |epoch: &Epoch| epoch.losses.iter().find(|(name, _)| name == wanted).and_then(|(_, loss)| *loss);
        vec![Line { pieces: pieces(epochs, value), colour: 2, name: None, marked: false }]
    };
    let highest = distinct.iter().map(|name| range(&of(name), true).1).fold(0.0, f64::max);
    let mut figures = Vec::new();
    for name in distinct {
        let lines = of(name);
        let last = lines[0].pieces.last().and_then(|piece| piece.last()).map(|(_, loss)| format!("{loss:.3}"));
        let last = last.unwrap_or_else(|| "not finite".into());
        let draw = plot(epochs, "nats", (0.0, highest), lines);
        figures.push(Figure {
            caption: name.clone(),
            label: format!("Line chart of the loss of the score {name}; it ends at {last}."),
            wide: draw(PANEL)?,
            narrow: Some(draw(SMALL_PANEL)?),
            legend: Vec::new(),
            numbers: None,
        });
    }
    Ok(Block::Panels {
        caption: "The loss of each score, on one scale; numbers are in the table above".into(),
        figures,
    })
}

/// A metric by its name.
type Series = (&'static str, fn(&Metrics) -> f64);

/// Metrics on the validation mentions.
fn validation(epochs: &[Epoch]) -> Result<Figure> {
    let percent = |of: fn(&Metrics) -> f64| move |epoch: &Epoch| epoch.valid.as_ref().map(|m| 100.0 * of(m));
    let series: [Series; 3] = [("H@3", |m| m.hits3), ("MRR", |m| m.reciprocal), ("H@1", |m| m.hits1)];
    let of_series = |(at, (name, of)): (usize, &Series)| line(epochs, at + 1, Some(*name), percent(*of));
    let lines: Vec<Line> = series.iter().enumerate().map(of_series).collect();
    let draw = plot(epochs, "percent of validation mentions", percents(&lines), lines);
    let row = |epoch: &Epoch| {
        let m = epoch.valid?;
        let percent = |share: f64| format!("{:.2}", 100.0 * share);
        let cells = [percent(m.hits1), percent(m.hits2), percent(m.hits3), percent(m.hits5)];
        let cells = cells.into_iter().chain([format!("{:.3}", m.mean_rank), percent(m.reciprocal)]);
        let remark = epoch.best.then(|| "best so far".to_string());
        Some(Row { remark, ..Row::new(epoch.epoch.to_string(), cells) })
    };
    let rows = epochs.iter().filter_map(row).collect();
    let header = ["Epoch", "H@1 %", "H@2 %", "H@3 %", "H@5 %", "MR", "MRR %"];
    let numbers = Table::new("Metrics on the validation mentions", &header, rows);
    let label = "Line chart of H@1, H@3 and MRR on the validation mentions over epochs.".into();
    figure("Metrics on the validation mentions over epochs", label, draw, numbers)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn row(epoch: usize, loss: &str) -> String {
        format!(r#"{{"epoch":{epoch},"loss":{loss},"losses":[["S1T",{loss}],["S1V",1.0]],"valid":null,"best":true}}"#)
    }

    #[test]
    fn a_loss_that_is_no_number_is_a_gap_and_is_said() {
        let text = [row(1, "2.0"), row(2, "null"), row(3, "1.0")].join("\n");
        let training = Training::parse(Path::new("train.jsonl"), &text).unwrap();
        assert_eq!(not_finite(&training.epochs), [2]);
        assert_eq!(pieces(&training.epochs, |epoch| epoch.loss), [[(1.0, 2.0)], [(3.0, 1.0)]]);
        let section = section(&[From { path: "m/train.jsonl".into(), what: training }]).unwrap().unwrap();
        let said = |block: &Block| matches!(block, Block::Warning { text } if text.contains("not finite at epoch 2"));
        assert!(section.blocks.iter().any(said));
        let all = [row(1, "null"), row(2, "null")].join("\n");
        let training = Training::parse(Path::new("train.jsonl"), &all).unwrap();
        assert!(total(&training.epochs).unwrap().label.contains("from not finite to not finite"));
    }

    #[test]
    fn a_last_line_that_was_cut_is_left_out_and_any_other_is_named() {
        let text = format!("{}\n{}\n{}", row(1, "2.0"), row(2, "1.5"), &row(3, "1.0")[..20]);
        let training = Training::parse(Path::new("train.jsonl"), &text).unwrap();
        assert_eq!((training.epochs.len(), training.cut), (2, Some(3)));
        let text = format!("{}\n{}", &row(3, "1.0")[..20], row(1, "2.0"));
        let error = Training::parse(Path::new("train.jsonl"), &text).unwrap_err().to_string();
        assert!(error.contains("train.jsonl:1: is no epoch"), "{error}");
    }
}
