//! FLOPs and parameters of the models (`fissfuse-bench flops --models`): what Fig. 11 of the paper has before accuracy.

use std::collections::BTreeMap;

use serde_json::Value;

use super::block::{Block, Figure, Row, Section, Table};
use super::chart::NARROW;
use super::chart::{Axis, Dot, Plot, Size, label, si};
use super::input::From;
use crate::error::Result;
use crate::profile::measurement::{Measurement, Measurements};

/// Size on a screen with room.
const WIDE: Size = (720, 400);

/// The command and the parameters that tell its rows apart.
const COMMAND: &str = "flops";
const BACKBONE: &str = "backbone";
const ENCODERS: &str = "encoders";

/// A model with one backbone.
struct Point<'a> {
    name: &'a str,
    flops: f64,
    parameters: f64,
    /// Where its figures are from.
    source: &'a str,
}

impl Point<'_> {
    fn of(result: &Measurement) -> Option<Point<'_>> {
        let (flops, parameters) = (result.figure("flops")?, result.figure("parameters")?);
        Some(Point { name: &result.name, flops, parameters, source: result.parameter("source").unwrap_or_default() })
    }
}

/// The section, if a file counts models.
pub fn section(measurements: &[From<Measurements>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for file in measurements.iter().filter(|file| file.what.command == COMMAND) {
        let mut groups: BTreeMap<(bool, &str), Vec<Point>> = BTreeMap::new();
        for result in &file.what.results {
            let encoders = result.parameters.get(ENCODERS).and_then(Value::as_bool);
            if let (Some(encoders), Some(backbone), Some(point)) =
                (encoders, result.parameter(BACKBONE), Point::of(result))
            {
                groups.entry((encoders, backbone)).or_default().push(point);
            }
        }
        if !groups.is_empty() {
            blocks.push(file.heading());
        }
        for ((encoders, backbone), points) in groups {
            let with = if encoders { "with the encoders" } else { "on cached features" };
            blocks.push(Block::Figure(Box::new(figure(&points, &format!("{backbone}, {with}"))?)));
        }
    }
    let lead = "One mention with 10 candidates; further left and down is cheaper.";
    Ok((!blocks.is_empty()).then_some(Section { id: "cost", title: "FLOPs and parameters", lead, blocks }))
}

/// What a logarithmic axis spans, with room at both ends.
fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let (low, high) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
    (low / 1.6, high * 1.6)
}

fn figure(points: &[Point], what: &str) -> Result<Figure> {
    // What has no parameters has no place on a logarithmic axis.
    let placed = || points.iter().filter(|point| point.flops > 0.0 && point.parameters > 0.0);
    let (x, y) = (range(placed().map(|point| point.flops)), range(placed().map(|point| point.parameters)));
    let ours = |point: &Point| point.name == "fissfuse";
    let dot = |point: &Point| Dot {
        at: (point.flops, point.parameters),
        colour: if ours(point) { 1 } else { 2 },
        hollow: false,
        radius: if ours(point) { 7 } else { 5 },
        name: Some(label(point.name, 28)),
    };
    let (flops, count) = (|value: f64| si(value, "FLOP"), |value: f64| si(value, ""));
    let draw = |size: Size| {
        let x = Axis { name: "FLOPs", range: x, log: true, whole: false, show: &flops };
        let y = Axis { name: "parameters", range: y, log: true, whole: false, show: &count };
        Plot { x, y, lines: Vec::new(), dots: placed().map(dot).collect() }.draw(size)
    };
    let row = |point: &Point| {
        let cells = [flops(point.flops), count(point.parameters), point.source.to_string()];
        Row { marked: ours(point), ..Row::new(point.name, cells) }
    };
    let table = Table::new(
        format!("FLOPs and parameters: {what}"),
        &["Model", "FLOPs", "Parameters", "Source"],
        points.iter().map(row).collect(),
    );
    Ok(Figure {
        caption: format!("Parameters against FLOPs, both on logarithmic axes: {what}"),
        label: format!(
            "Scatter chart of parameters against FLOPs of {} models, {what}; the numbers are in the table below.",
            placed().count()
        ),
        wide: draw(WIDE)?,
        narrow: Some(draw(NARROW)?),
        legend: Vec::new(),
        numbers: Some(table),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn models_stand_apart_by_backbone_and_encoders() {
        let row = |name: &str, encoders: bool, figures: serde_json::Value| {
            json!({"name": name, "figures": figures,
                "parameters": {"backbone": "clip", "encoders": encoders, "source": "computed"}})
        };
        let results = json!([
            row("clip", false, json!({"flops": 54.0, "parameters": 0.0})),
            row("fissfuse", false, json!({"flops": 2e6, "parameters": 5e5})),
            row("mimic", true, json!({"flops": 2e9, "parameters": 1e8})),
            row("unknown", true, json!({"flops": null, "parameters": 1e8})),
        ]);
        let what = Measurements {
            results: serde_json::from_value(results).unwrap(),
            ..Measurements::begin("flops", None).unwrap()
        };
        let file = From { path: "flops.json".into(), what };
        let section = section(&[file]).unwrap().unwrap();
        let figures: Vec<&Figure> = section
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::Figure(figure) => Some(&**figure),
                _ => None,
            })
            .collect();
        assert_eq!(figures.len(), 2);
        assert!(figures[0].caption.contains("on cached features") && figures[1].caption.contains("with the encoders"));
        // A model without parameters is in the table alone.
        let table = figures[0].numbers.as_ref().unwrap();
        let heads: Vec<(&str, bool)> = table.rows.iter().map(|row| (&*row.head, row.marked)).collect();
        assert_eq!(heads, [("clip", false), ("fissfuse", true)]);
        assert!(figures[0].label.contains("of 1 models"));
    }
}
