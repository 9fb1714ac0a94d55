//! Logs of a line for each epoch, and lines over epochs.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::block::{Block, Figure, Table};
use super::chart::{Axis, Line, NARROW, Plot, Size, WIDE};
use crate::data::record_error;
use crate::error::Result;

/// A log.
#[derive(Debug)]
pub struct Log<E> {
    /// What each epoch came to.
    pub epochs: Vec<E>,
    /// Number of the last line, if it was cut short.
    pub cut: Option<usize>,
}

/// What an epoch came to.
pub trait Epoch: DeserializeOwned {
    /// Whose epoch it is, for errors.
    const OF: &'static str;

    /// Counted from 1.
    fn number(&self) -> usize;
}

/// Most points that a line is drawn with.
const MOST_POINTS: usize = 500;

/// Most epochs that each have a mark.
const MOST_MARKS: usize = 40;

impl<E: Epoch> Log<E> {
    /// Of a log's text. A last line that was cut short, as a killed process or a copy in the middle of a run leaves it,
    /// is left out.
    pub fn parse(path: &Path, text: &str) -> Result<Log<E>> {
        let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
        let (mut epochs, mut cut) = (Vec::new(), None);
        for (at, (number, line)) in lines.iter().enumerate() {
            match serde_json::from_str::<E>(line.trim_start_matches('\u{feff}')) {
                Ok(epoch) => epochs.push(epoch),
                Err(e) if e.is_eof() && at + 1 == lines.len() && at > 0 => cut = Some(number + 1),
                Err(e) => return Err(record_error(path, number + 1, format!("is no epoch of {}: {e}", E::OF))),
            }
        }
        Ok(Log { epochs, cut })
    }

    /// What is left out, if anything is.
    pub fn cut_short(&self) -> Option<Block> {
        let line = self.cut?;
        Some(Block::warning(format!("Line {line}, the last one, was cut short and is left out.")))
    }
}

/// Values over epochs as pieces of a line: what is not finite is a gap. Of long logs, every n-th epoch.
pub fn pieces<E: Epoch>(epochs: &[E], value: impl Fn(&E) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let every = epochs.len().div_ceil(MOST_POINTS).max(1);
    let points =
        epochs.iter().step_by(every).map(|epoch| (epoch.number() as f64, value(epoch).filter(|v| v.is_finite())));
    let points: Vec<(f64, Option<f64>)> = points.collect();
    let pieces = points.split(|(_, value)| value.is_none());
    let whole = |piece: &[(f64, Option<f64>)]| piece.iter().filter_map(|(x, y)| Some((*x, (*y)?))).collect::<Vec<_>>();
    pieces.map(whole).filter(|piece| !piece.is_empty()).collect()
}

/// The same as a line, with a mark for each of a few epochs.
pub fn line<E: Epoch>(epochs: &[E], colour: usize, name: Option<&str>, value: impl Fn(&E) -> Option<f64>) -> Line {
    let marked = epochs.len() <= MOST_MARKS;
    Line { pieces: pieces(epochs, value), colour, name: name.map(Into::into), marked }
}

/// From 0, or the least of the values, to the largest of them with some room; from 0 to 1 if there is none.
pub fn range(lines: &[Line], from_zero: bool) -> (f64, f64) {
    let values = || lines.iter().flat_map(|line| line.pieces.iter().flatten()).map(|point| point.1);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    match (low.is_finite(), from_zero) {
        (false, _) => (0.0, 1.0),
        (true, true) => (0.0, if high > 0.0 { 1.05 * high } else { 1.0 }),
        (true, false) => (low - 0.08 * (high - low), high + 0.08 * (high - low)),
    }
}

/// The range of percents.
pub fn percents(lines: &[Line]) -> (f64, f64) {
    let (low, high) = range(lines, false);
    (low.max(0.0), high.min(100.0))
}

/// Draws lines over epochs in any size.
pub fn plot<E: Epoch>(
    epochs: &[E],
    y_name: &str,
    y: (f64, f64),
    lines: Vec<Line>,
) -> impl Fn(Size) -> Result<String> + use<E> {
    let ends = (epochs.first().map_or(0, E::number) as f64, epochs.last().map_or(1, E::number) as f64);
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

/// A figure of what `draw` draws, with its numbers.
pub fn figure(caption: &str, label: String, draw: impl Fn(Size) -> Result<String>, numbers: Table) -> Result<Figure> {
    let (wide, narrow) = (draw(WIDE)?, Some(draw(NARROW)?));
    Ok(Figure { caption: caption.into(), label, wide, narrow, legend: Vec::new(), numbers: Some(numbers) })
}
