//! FLOPs and parameters against accuracy (Fig. 11 of the paper), from experiments that count them.

use super::block::{Block, Figure, Row, Section, Table};
use super::chart::NARROW;
use super::chart::{Axis, Dot, Plot, Size, label, si};
use super::experiment::{Summary, SummaryRow};
use super::input::From;
use crate::error::Result;

/// Size on a screen with room.
const WIDE: Size = (720, 380);

/// A model that is drawn.
struct Point<'a> {
    name: &'a str,
    flops: f64,
    parameters: f64,
    /// In percent.
    reciprocal: f64,
    ours: bool,
}

/// The section, if an experiment counts FLOPs.
pub fn section(experiments: &[From<Summary>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for experiment in experiments {
        let summary = &experiment.what;
        let point = |row: &'_ SummaryRow| {
            let (flops, metrics) = (row.flops.filter(|flops| *flops > 0)?, row.metrics.as_ref()?);
            Some((flops as f64, row.parameters.unwrap_or(0) as f64, 100.0 * metrics.reciprocal.mean))
        };
        let points: Vec<Point> = summary
            .rows
            .iter()
            .filter_map(|row| {
                let (flops, parameters, reciprocal) = point(row)?;
                let ours = summary.against.as_ref() == Some(&row.name);
                Some(Point { name: &row.name, flops, parameters, reciprocal, ours })
            })
            .collect();
        if points.is_empty() {
            continue;
        }
        blocks.push(Block::heading(&summary.title, &experiment.source()));
        blocks
            .push(Block::Figure(Box::new(figure(&points, "FLOPs of a mention with 10 candidates", "", |p| p.flops)?)));
        // A model without parameters has no place on a logarithmic axis.
        let trained: Vec<Point> = points.into_iter().filter(|point| point.parameters > 0.0).collect();
        if !trained.is_empty() {
            blocks.push(Block::Figure(Box::new(figure(&trained, "trained parameters", "", |p| p.parameters)?)));
        }
    }
    let lead = "Further left is cheaper, further up is better. Features count as cached.";
    Ok((!blocks.is_empty()).then_some(Section { id: "complexity", title: "Cost against accuracy", lead, blocks }))
}

fn figure(points: &[Point], what: &str, unit: &str, x_of: impl Fn(&Point) -> f64) -> Result<Figure> {
    let ends = |of: &dyn Fn(&Point) -> f64| {
        let values = || points.iter().map(of);
        (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
    };
    let ((x0, x1), (y0, y1)) = (ends(&x_of), ends(&|point: &Point| point.reciprocal));
    let room = (0.12 * (y1 - y0)).max(0.5);
    let dot = |point: &Point| Dot {
        at: (x_of(point), point.reciprocal),
        colour: if point.ours { 1 } else { 2 },
        hollow: false,
        radius: if point.ours { 7 } else { 5 },
        name: Some(label(point.name, 28)),
    };
    let draw = |size: Size| {
        let (count, percent) =
            (|value: f64| si(value, unit), |value: f64| format!("{}", (value * 100.0).round() / 100.0));
        let x = Axis { name: what, range: (x0 / 1.6, x1 * 1.6), log: true, whole: false, show: &count };
        let y = Axis { name: "MRR, percent", range: (y0 - room, y1 + room), log: false, whole: false, show: &percent };
        Plot { x, y, lines: Vec::new(), dots: points.iter().map(dot).collect() }.draw(size)
    };
    let row = |point: &Point| {
        let cells = [si(point.flops, "FLOP"), si(point.parameters, ""), format!("{:.2}", point.reciprocal)];
        Row { marked: point.ours, ..Row::new(point.name, cells) }
    };
    let header = ["Model", "FLOPs", "Parameters", "MRR %"];
    Ok(Figure {
        caption: format!("MRR against {what}, on a logarithmic axis"),
        label: format!(
            "Scatter chart of MRR against {what} of {} models; the numbers are in the table below.",
            points.len()
        ),
        wide: draw(WIDE)?,
        narrow: Some(draw(NARROW)?),
        legend: Vec::new(),
        numbers: Some(Table::new(format!("MRR against {what}"), &header, points.iter().map(row).collect())),
    })
}
