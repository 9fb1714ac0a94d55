//! Kernels and operations beneath the roof that compute and memory make.

use super::block::{Block, Figure, Key, Row, Section, Table};
use super::chart::NARROW;
use super::chart::{Axis, Dot, Line, Plot, Size, label, si};
use super::input::From;
use crate::device::Ceilings;
use crate::error::Result;
use crate::profile::measurement::{Measurement, Measurements};

/// Size on a screen with room.
const WIDE: Size = (720, 440);

/// What is drawn.
struct Point<'a> {
    name: &'a str,
    /// FLOPs per byte.
    intensity: f64,
    /// FLOPs per second, if it was measured.
    measured: Option<f64>,
    flops: f64,
    bytes: f64,
}

impl Point<'_> {
    /// Of a result that counts FLOPs and bytes, both above 0.
    fn of(result: &Measurement) -> Option<Point<'_>> {
        let above = |name: &str| result.figure(name).filter(|value| *value > 0.0);
        let (flops, bytes) = (above("flops")?, above("bytes")?);
        let timed = result.seconds.as_ref().map(|seconds| seconds.p50());
        let measured = above("flops_per_second").or(timed.map(|seconds| flops / seconds));
        let intensity = above("intensity").unwrap_or(flops / bytes);
        Some(Point { name: &result.name, intensity, measured, flops, bytes })
    }
}

/// The section, if a file counts FLOPs and bytes.
pub fn section(measurements: &[From<Measurements>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for file in measurements {
        let points: Vec<Point> = file.what.results.iter().filter_map(Point::of).collect();
        if points.is_empty() {
            continue;
        }
        blocks.push(file.heading());
        let Some((ceilings, whose)) = ceilings(file, measurements) else {
            blocks.push(Block::warning(
                "No ceilings of this machine are among the files, so there is no roof to draw: fissfuse-bench ceiling \
                 measures them, and its file is to be named beside this one.",
            ));
            blocks.push(Block::Table(numbers(&points, None)));
            blocks.extend(file.remarks(|row| Point::of(row).is_some()));
            continue;
        };
        if whose.path != file.path {
            blocks.push(Block::text(format!(
                "The ceilings are those of {}, measured on the same machine.",
                whose.source()
            )));
        }
        let idle = |result: &&Measurement| {
            result.figure("bytes").is_some_and(|b| b > 0.0) && result.figure("flops") == Some(0.0)
        };
        let idle: Vec<&str> = file.what.results.iter().filter(idle).map(|result| result.name.as_str()).collect();
        if !idle.is_empty() {
            blocks.push(Block::text(format!(
                "These move bytes and compute nothing, so they have no place here: {}.",
                idle.join(", ")
            )));
        }
        blocks.push(Block::Figure(Box::new(figure(&points, ceilings)?)));
        blocks.extend(file.remarks(|row| Point::of(row).is_some()));
    }
    let lead = "A kernel below the slope waits for memory, one below the flat part for arithmetic; the nearer to the \
                roof, the less is left to gain.";
    Ok((!blocks.is_empty()).then_some(Section { id: "roofline", title: "Roofline", lead, blocks }))
}

/// A file's ceilings, or those of another file of the same machine.
fn ceilings<'a>(
    file: &'a From<Measurements>,
    all: &'a [From<Measurements>],
) -> Option<(Ceilings, &'a From<Measurements>)> {
    let usable = |c: &Ceilings| [c.flops_per_second, c.bytes_per_second].iter().all(|x| x.is_finite() && *x > 0.0);
    let same = all.iter().filter(|other| other.what.machine == file.what.machine);
    [file].into_iter().chain(same).find_map(|other| Some((other.what.ceilings.filter(usable)?, other)))
}

fn numbers(points: &[Point], ceilings: Option<Ceilings>) -> Table {
    let row = |point: &Point| {
        let measured = point.measured.map_or("counted only".to_string(), |speed| si(speed, "FLOP/s"));
        let cells = [si(point.flops, "FLOP"), si(point.bytes, "B"), format!("{:.3}", point.intensity), measured];
        let share = ceilings.map(|ceilings| match point.measured {
            Some(speed) => format!("{:.0} %", 100.0 * speed / ceilings.attainable(point.intensity)),
            None => "–".to_string(),
        });
        Row::new(point.name, cells.into_iter().chain(share))
    };
    let header = ["Kernel or operation", "FLOPs", "Bytes", "FLOPs per byte", "Reached", "Of its ceiling"];
    let header = if ceilings.is_some() { &header[..] } else { &header[..5] };
    Table::new("What is computed and moved", header, points.iter().map(row).collect())
}

fn figure(points: &[Point], ceilings: Ceilings) -> Result<Figure> {
    let height = |point: &Point| point.measured.unwrap_or_else(|| ceilings.attainable(point.intensity));
    let ridge = ceilings.flops_per_second / ceilings.bytes_per_second;
    let ends = |values: &dyn Fn() -> Vec<f64>| {
        let values = values();
        (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(0.0, f64::max))
    };
    let (x0, x1) = ends(&|| points.iter().map(|point| point.intensity).chain([ridge]).collect());
    let (x0, x1) = (x0 / 3.0, x1 * 3.0);
    let (y0, _) = ends(&|| points.iter().map(height).chain([ceilings.attainable(x0)]).collect());
    let roof = vec![(x0, ceilings.attainable(x0)), (ridge, ceilings.flops_per_second), (x1, ceilings.flops_per_second)];
    // What is faster than its ceiling, as what lies in caches can be, is drawn above it.
    let top = points.iter().map(height).fold(ceilings.flops_per_second, f64::max);
    let dot = |point: &Point| Dot {
        at: (point.intensity, height(point)),
        colour: if point.measured.is_some() { 1 } else { 2 },
        hollow: point.measured.is_none(),
        radius: 5,
        name: Some(label(point.name, 28)),
    };
    let draw = |size: Size| {
        let (ratio, speed) = (|value: f64| format!("{}", (value * 1e6).round() / 1e6), |value: f64| si(value, ""));
        let x = Axis { name: "FLOPs per byte", range: (x0, x1), log: true, whole: false, show: &ratio };
        let y = Axis { name: "FLOP/s", range: (y0 / 2.0, top * 2.5), log: true, whole: false, show: &speed };
        let roof = Line { pieces: vec![roof.clone()], colour: 6, name: None, marked: false };
        Plot { x, y, lines: vec![roof], dots: points.iter().map(dot).collect() }.draw(size)
    };
    let (measured, counted) =
        (points.iter().any(|p| p.measured.is_some()), points.iter().any(|p| p.measured.is_none()));
    let roof_text =
        format!("roof: {} and {}", si(ceilings.flops_per_second, "FLOP/s"), si(ceilings.bytes_per_second, "B/s"));
    let mut legend = vec![Key { colour: 6, mark: "line", text: roof_text }];
    if measured {
        legend.push(Key { colour: 1, mark: "solid", text: "measured".into() });
    }
    if counted {
        legend.push(Key { colour: 2, mark: "hollow", text: "counted by cusim: drawn at its ceiling".into() });
    }
    Ok(Figure {
        caption: "What is reached, and what compute and memory allow, on logarithmic axes".into(),
        label: format!(
            "Roofline chart of {} kernels or operations beneath {} and {}; the numbers are in the table below.",
            points.len(),
            si(ceilings.flops_per_second, "FLOP/s"),
            si(ceilings.bytes_per_second, "B/s")
        ),
        wide: draw(WIDE)?,
        narrow: Some(draw(NARROW)?),
        legend,
        numbers: Some(numbers(points, Some(ceilings))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(ceilings: serde_json::Value) -> From<Measurements> {
        let results = json!([
            {"name": "gather", "figures": {"flops": 0, "bytes": 100}},
            {"name": "project", "figures": {"flops": 4000, "bytes": 100}, "seconds": {"samples": [1e-6]}},
            {"name": "mlp", "figures": {"flops": 50, "bytes": 100, "intensity": null}, "seconds": null},
            {"name": "unknown", "figures": {"flops": null, "bytes": 100}},
        ]);
        let path = format!("{}.json", ceilings.is_null()).into();
        let what = Measurements {
            results: serde_json::from_value(results).unwrap(),
            ceilings: serde_json::from_value(ceilings).unwrap(),
            ..Measurements::begin("kernels", None).unwrap()
        };
        From { path, what }
    }

    #[test]
    fn kernels_stand_where_they_were_measured_or_at_their_ceiling() {
        let file = file(json!({"flops_per_second": 1e10, "bytes_per_second": 1e9}));
        let points: Vec<Point> = file.what.results.iter().filter_map(Point::of).collect();
        let seen: Vec<_> = points.iter().map(|p| (p.name, p.intensity, p.measured)).collect();
        assert_eq!(seen, [("project", 40.0, Some(4e9)), ("mlp", 0.5, None)]);
        let figure = figure(&points, file.what.ceilings.unwrap()).unwrap();
        let cells = |row: &Row| row.cells.iter().map(|cell| cell.text.clone()).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = figure.numbers.unwrap().rows.iter().map(cells).collect();
        assert_eq!(rows[0], ["4 kFLOP", "100 B", "40.000", "4 GFLOP/s", "40 %"]);
        assert_eq!(rows[1][3..], ["counted only", "–"]);
        // The hollow mark has the paper behind it, the solid one none.
        assert_eq!((figure.legend.len(), figure.wide.matches("<circle").count()), (3, 4));
    }

    #[test]
    fn ceilings_of_another_file_of_the_machine_serve_and_none_is_said() {
        let ceiling = json!({"flops_per_second": 1e10, "bytes_per_second": 1e9});
        let both = [file(serde_json::Value::Null), file(ceiling)];
        assert!(ceilings(&both[0], &both).is_some_and(|(_, whose)| whose.path == both[1].path));
        let section = section(&both[..1]).unwrap().unwrap();
        let said = |block: &Block| matches!(block, Block::Warning { text } if text.contains("no roof to draw"));
        assert!(section.blocks.iter().any(said));
    }
}
