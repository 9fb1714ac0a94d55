//! A training's log: its losses, and its metrics on the validation mentions.

use std::path::Path;

use serde::Deserialize;

use super::block::{Block, Figure, Row, Section, Table};
use super::chart::{Axis, Line, Plot, Size};
use super::input::From;
use crate::data::record_error;
use crate::error::Result;
use crate::eval::Metrics;

/// A training's log.
#[derive(Debug)]
pub struct Training {
    /// What each epoch came to.
    pub epochs: Vec<Epoch>,
    /// Number of the last line, if it was cut short.
    pub cut: Option<usize>,
}

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

/// Most points that a line is drawn with.
const MOST_POINTS: usize = 500;

/// Sizes of a chart on a screen with room, on a phone, and of one of several side by side.
pub const WIDE: Size = (720, 320);
/// See [`WIDE`].
pub const NARROW: Size = (350, 270);
const PANEL: Size = (230, 170);
const SMALL_PANEL: Size = (150, 140);

impl Training {
    /// Of a log's text. A last line that was cut short, as a killed process or a copy in the middle of a run leaves it,
    /// is left out.
    pub fn parse(path: &Path, text: &str) -> Result<Training> {
        let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
        let (mut epochs, mut cut) = (Vec::new(), None);
        for (at, (number, line)) in lines.iter().enumerate() {
            match serde_json::from_str::<Epoch>(line.trim_start_matches('\u{feff}')) {
                Ok(epoch) => epochs.push(epoch),
                Err(e) if e.is_eof() && at + 1 == lines.len() && at > 0 => cut = Some(number + 1),
                Err(e) => return Err(record_error(path, number + 1, format!("is no epoch of a training's log: {e}"))),
            }
        }
        Ok(Training { epochs, cut })
    }

    /// The epochs whose loss is no finite number.
    fn not_finite(&self) -> Vec<usize> {
        let finite = |loss: &Option<f64>| loss.is_some_and(f64::is_finite);
        let bad = |e: &&Epoch| !finite(&e.loss) || e.losses.iter().any(|(_, loss)| !finite(loss));
        self.epochs.iter().filter(bad).map(|e| e.epoch).collect()
    }
}

/// The section, if there is a log.
pub fn section(trainings: &[From<Training>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for training in trainings {
        blocks.push(Block::heading(training.short(), &training.source()));
        let Training { epochs, cut } = &training.what;
        if let Some(line) = cut {
            blocks.push(Block::warning(format!("Line {line}, the last one, was cut short and is left out.")));
        }
        let bad: Vec<String> = training.what.not_finite().iter().map(usize::to_string).collect();
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

/// Values over epochs as pieces of a line: what is not finite is a gap. Of long logs, every n-th epoch.
fn pieces(epochs: &[Epoch], value: impl Fn(&Epoch) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let every = epochs.len().div_ceil(MOST_POINTS).max(1);
    let points = epochs.iter().step_by(every).map(|epoch| (epoch.epoch as f64, value(epoch).filter(|v| v.is_finite())));
    let points: Vec<(f64, Option<f64>)> = points.collect();
    let pieces = points.split(|(_, value)| value.is_none());
    let whole = |piece: &[(f64, Option<f64>)]| piece.iter().filter_map(|(x, y)| Some((*x, (*y)?))).collect::<Vec<_>>();
    pieces.map(whole).filter(|piece| !piece.is_empty()).collect()
}

/// From 0, or the least of the values, to the largest of them with some room; from 0 to 1 if there is none.
fn range(lines: &[Line], from_zero: bool) -> (f64, f64) {
    let values = || lines.iter().flat_map(|line| line.pieces.iter().flatten()).map(|point| point.1);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    match (low.is_finite(), from_zero) {
        (false, _) => (0.0, 1.0),
        (true, true) => (0.0, if high > 0.0 { 1.05 * high } else { 1.0 }),
        (true, false) => (low - 0.08 * (high - low), high + 0.08 * (high - low)),
    }
}

fn plot(epochs: &[Epoch], y_name: &str, y: (f64, f64), lines: Vec<Line>) -> impl Fn(Size) -> Result<String> {
    let ends = (epochs.first().map_or(0, |e| e.epoch) as f64, epochs.last().map_or(1, |e| e.epoch) as f64);
    let name = y_name.to_string();
    move |size| {
        let whole = |value: f64| format!("{value:.0}");
        let plain = |value: f64| format!("{}", (value * 1e4).round() / 1e4);
        let x = Axis { name: "epoch", range: ends, log: false, whole: true, show: &whole };
        let y = Axis { name: &name, range: y, log: false, whole: false, show: &plain };
        let lines = lines.iter().map(|line| Line { pieces: line.pieces.clone(), name: line.name.clone(), ..*line });
        Plot { x, y, lines: lines.collect(), dots: Vec::new() }.draw(size)
    }
}

/// The whole loss.
fn total(epochs: &[Epoch]) -> Result<Figure> {
    let marked = epochs.len() <= 40;
    let lines = vec![Line { pieces: pieces(epochs, |epoch| epoch.loss), colour: 1, name: None, marked }];
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
    Ok(Figure {
        caption: "Training loss over epochs".into(),
        label: format!("Line chart of the training loss over {} epochs, from {first} to {last}.", epochs.len()),
        wide: draw(WIDE)?,
        narrow: Some(draw(NARROW)?),
        legend: Vec::new(),
        numbers: Some(Table::new(
            "Training loss, and its part by each score",
            &header,
            epochs.iter().map(row).collect(),
        )),
    })
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
    let marked = epochs.len() <= 40;
    let line = |(at, (name, of)): (usize, &Series)| Line {
        pieces: pieces(epochs, percent(*of)),
        colour: at + 1,
        name: Some(name.to_string()),
        marked,
    };
    let lines: Vec<Line> = series.iter().enumerate().map(line).collect();
    let range = range(&lines, false);
    let draw = plot(epochs, "percent of validation mentions", (range.0.max(0.0), range.1.min(100.0)), lines);
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
    Ok(Figure {
        caption: "Metrics on the validation mentions over epochs".into(),
        label: "Line chart of H@1, H@3 and MRR on the validation mentions over epochs.".into(),
        wide: draw(WIDE)?,
        narrow: Some(draw(NARROW)?),
        legend: Vec::new(),
        numbers: Some(Table::new("Metrics on the validation mentions", &header, rows)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(epoch: usize, loss: &str) -> String {
        format!(r#"{{"epoch":{epoch},"loss":{loss},"losses":[["S1T",{loss}],["S1V",1.0]],"valid":null,"best":true}}"#)
    }

    #[test]
    fn a_loss_that_is_no_number_is_a_gap_and_is_said() {
        let text = [line(1, "2.0"), line(2, "null"), line(3, "1.0")].join("\n");
        let training = Training::parse(Path::new("train.jsonl"), &text).unwrap();
        assert_eq!(training.not_finite(), [2]);
        assert_eq!(pieces(&training.epochs, |epoch| epoch.loss), [[(1.0, 2.0)], [(3.0, 1.0)]]);
        let section = section(&[From { path: "m/train.jsonl".into(), what: training }]).unwrap().unwrap();
        let said = |block: &Block| matches!(block, Block::Warning { text } if text.contains("not finite at epoch 2"));
        assert!(section.blocks.iter().any(said));
        let all = [line(1, "null"), line(2, "null")].join("\n");
        let training = Training::parse(Path::new("train.jsonl"), &all).unwrap();
        assert!(total(&training.epochs).unwrap().label.contains("from not finite to not finite"));
    }

    #[test]
    fn a_last_line_that_was_cut_is_left_out_and_any_other_is_named() {
        let text = format!("{}\n{}\n{}", line(1, "2.0"), line(2, "1.5"), &line(3, "1.0")[..20]);
        let training = Training::parse(Path::new("train.jsonl"), &text).unwrap();
        assert_eq!((training.epochs.len(), training.cut), (2, Some(3)));
        let text = format!("{}\n{}", &line(3, "1.0")[..20], line(1, "2.0"));
        let error = Training::parse(Path::new("train.jsonl"), &text).unwrap_err().to_string();
        assert!(error.contains("train.jsonl:1: is no epoch"), "{error}");
    }
}
