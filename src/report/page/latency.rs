//! How long things took, as distributions.

use super::block::{Block, Figure, Key, Row, Section, Table};
use super::chart::{Axis, COLOURS, Line, Plot, si};
use super::chart::{NARROW, WIDE};
use super::input::From;
use crate::error::Result;
use crate::profile::Timing;
use crate::profile::by_op::PASS;
use crate::profile::measurement::{Measurement, Measurements};

/// Fewest samples that make a distribution.
const FEWEST: usize = 5;

/// Most points that a line is drawn with.
const MOST_POINTS: usize = 400;

/// The section, if something was timed.
pub fn section(measurements: &[From<Measurements>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for file in measurements {
        let timed = |result: &Measurement| result.seconds.as_ref().is_some_and(|seconds| seconds.p50() > 0.0);
        // Operations of a step are parts of one time, and kernels stand beneath a roof: other sections show them.
        let results: Vec<&Measurement> = file
            .what
            .results
            .iter()
            .filter(|r| {
                timed(r)
                    && (file.what.command != "step" || r.parameter(PASS).is_none())
                    && file.what.command != "kernels"
            })
            .collect();
        if results.is_empty() {
            continue;
        }
        blocks.push(file.heading());
        let sampled = |result: &&&Measurement| samples(result).len() >= FEWEST;
        let drawn: Vec<&Measurement> = results.iter().filter(sampled).take(COLOURS).copied().collect();
        match drawn.is_empty() {
            true => blocks.push(Block::Table(numbers(&results))),
            false => blocks.push(Block::Figure(Box::new(figure(&drawn, &results)?))),
        }
        blocks.extend(file.remarks(|row| results.iter().any(|shown| std::ptr::eq(*shown, row))));
    }
    let lead = "The steeper a line, the more alike the runs; what is far to the right at its top are the slowest ones.";
    Ok((!blocks.is_empty()).then_some(Section { id: "latency", title: "Latency", lead, blocks }))
}

/// Seconds of the runs, the fastest first.
fn samples(result: &Measurement) -> &[f64] {
    result.seconds.as_ref().map(Timing::ascending).unwrap_or_default()
}

fn numbers(results: &[&Measurement]) -> Table {
    let row = |result: &&Measurement| {
        let cells = result.seconds.iter().flat_map(|seconds| {
            let times = [0.0, 0.5, 0.9, 0.99, 0.999, 1.0].map(|share| si(seconds.quantile(share), "s"));
            let noise = format!("{:.1} %", 100.0 * seconds.noise());
            [seconds.runs().to_string()].into_iter().chain(times).chain([noise])
        });
        Row::new(result.label(), cells)
    };
    let header = ["What", "Runs", "Least", "Median", "90 %", "99 %", "99.9 %", "Most", "Noise"];
    Table::new("Times; noise is the middle half’s width to the median", &header, results.iter().map(row).collect())
}

/// The share of runs that took no longer, over time.
fn figure(drawn: &[&Measurement], results: &[&Measurement]) -> Result<Figure> {
    let (mut lines, mut legend) = (Vec::new(), Vec::new());
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for (at, result) in drawn.iter().enumerate() {
        let samples = samples(result);
        (least, most) = (least.min(samples[0]), most.max(samples[samples.len() - 1]));
        let share = |at: usize| 100.0 * (at + 1) as f64 / samples.len() as f64;
        let every = samples.len().div_ceil(MOST_POINTS).max(1);
        // The last one always: it is the slowest run.
        let places = (0..samples.len() - 1).step_by(every).chain([samples.len() - 1]);
        let points = places.map(|at| (samples[at], share(at))).collect();
        lines.push(Line { pieces: vec![points], colour: at + 1, name: None, marked: samples.len() <= 30 });
        legend.push(Key { colour: at + 1, mark: "line", text: result.label() });
    }
    let time = |value: f64| si(value, "s");
    let percent = |value: f64| format!("{value:.0}");
    let log = most > 8.0 * least;
    let room = 0.04 * (most - least);
    let range = if log { (least / 1.1, most * 1.1) } else { ((least - room).max(0.0), most + room) };
    let draw = |size| {
        let x = Axis { name: "time", range, log, whole: false, show: &time };
        let y = Axis {
            name: "percent of runs that took no longer",
            range: (0.0, 100.0),
            log: false,
            whole: false,
            show: &percent,
        };
        let lines = lines.iter().map(|line| Line { pieces: line.pieces.clone(), name: None, ..*line });
        Plot { x, y, lines: lines.collect(), dots: Vec::new() }.draw(size)
    };
    let of = |result: &&Measurement| {
        let median = result.seconds.as_ref().map_or("unknown".into(), |seconds| si(seconds.p50(), "s"));
        format!("{} with median {median}", result.label())
    };
    let shown: Vec<String> = drawn.iter().map(of).collect();
    Ok(Figure {
        caption: format!("Distribution of times{}", if log { ", on a logarithmic axis" } else { "" }),
        label: format!("Distributions of the times of {}.", shown.join(", ")),
        wide: draw(WIDE)?,
        narrow: Some(draw(NARROW)?),
        legend,
        numbers: Some(numbers(results)),
    })
}
