//! Where a time goes: a step's operations, and the parts of what was measured.

use indexmap::IndexMap;

use super::block::{Block, Figure, Row, Section, Table};
use super::chart::{Flame, Span, si};
use super::input::From;
use crate::error::Result;
use crate::profile::by_op::{ALL, PASS, WHOLE_STEP};
use crate::profile::measurement::{Measurement, Measurements};

/// A part of a time.
struct Part {
    name: String,
    seconds: f64,
    /// Its own parts.
    parts: Vec<Part>,
}

impl Part {
    fn new(name: impl Into<String>, seconds: f64) -> Part {
        Part { name: name.into(), seconds, parts: Vec::new() }
    }

    /// A whole of parts, the largest first.
    fn of(name: impl Into<String>, mut parts: Vec<Part>) -> Part {
        parts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Part { name: name.into(), seconds: parts.iter().map(|part| part.seconds).sum(), parts }
    }
}

/// The section, if a file has operations or parts.
pub fn section(measurements: &[From<Measurements>]) -> Result<Option<Section>> {
    let mut blocks = Vec::new();
    for file in measurements {
        let mut wholes = match file.what.command.as_str() {
            "step" => by_operation(&file.what.results),
            _ => Vec::new(),
        };
        wholes.extend(file.what.results.iter().filter_map(by_part));
        if wholes.is_empty() {
            continue;
        }
        blocks.push(file.heading());
        for whole in wholes {
            blocks.push(Block::Figure(Box::new(figure(&whole)?)));
        }
        let of_a_step = |row: &Measurement| file.what.command == "step" && row.parameter(PASS).is_some();
        blocks.extend(file.remarks(|row| of_a_step(row) || !row.parts.is_empty()));
    }
    let lead = "Each bar is as wide as its share of the bar above it. Times are medians.";
    Ok((!blocks.is_empty()).then_some(Section { id: "time", title: "Where the time goes", lead, blocks }))
}

/// Steps taken apart, each with its operations by pass; those of other sizes are other steps.
fn by_operation(results: &[Measurement]) -> Vec<Part> {
    let mut steps: IndexMap<String, IndexMap<&str, Vec<Part>>> = IndexMap::new();
    for result in results {
        let (Some(pass), Some(seconds)) = (result.parameter(PASS), &result.seconds) else { continue };
        if result.name == WHOLE_STEP {
            continue;
        }
        let mut parameters = result.parameters.clone();
        parameters.shift_remove(PASS);
        let step = Measurement::new(WHOLE_STEP, parameters).label();
        let part = Part::new(&result.name, seconds.p50());
        steps.entry(step).or_default().entry(pass).or_default().push(part);
    }
    let step = |(name, passes): (String, IndexMap<&str, Vec<Part>>)| {
        let passes = passes.into_iter().flat_map(|(pass, parts)| match pass {
            // What belongs to no pass stands beside them.
            ALL => parts,
            _ => vec![Part::of(pass, parts)],
        });
        Part::of(name, passes.collect())
    };
    steps.into_iter().map(step).collect()
}

/// A result with the parts that it names.
fn by_part(result: &Measurement) -> Option<Part> {
    let parts: Vec<Part> = result.parts.iter().map(|(name, seconds)| Part::new(name, seconds.p50())).collect();
    let mut whole = (!parts.is_empty()).then(|| Part::of(result.label(), parts))?;
    // What none of the parts took is the rest; medians of parts may also add up to more.
    let measured = result.seconds.as_ref().map(|seconds| seconds.p50()).unwrap_or(whole.seconds);
    if measured > 1.005 * whole.seconds {
        whole.parts.push(Part::new("rest", measured - whole.seconds));
        whole.seconds = measured;
    }
    Some(whole)
}

/// Spans of a part and of its parts.
fn spans(part: &Part, depth: usize, (from, to): (f64, f64), colour: usize, spans_of: &mut Vec<Span>) {
    spans_of.push(Span { depth, share: (from, to), name: format!("{} {}", part.name, si(part.seconds, "s")), colour });
    let mut at = from;
    for (number, inner) in part.parts.iter().enumerate() {
        let end = at + (to - from) * inner.seconds / part.seconds.max(f64::MIN_POSITIVE);
        spans(inner, depth + 1, (at, end), if depth == 0 { number + 2 } else { colour }, spans_of);
        at = end;
    }
}

fn figure(whole: &Part) -> Result<Figure> {
    let mut all = Vec::new();
    spans(whole, 0, (0.0, 1.0), 1, &mut all);
    let flame = Flame { spans: all };
    let mut rows = Vec::new();
    let mut list = vec![(whole, String::new())];
    while let Some((part, within)) = list.pop() {
        let cells = [within.clone(), si(part.seconds, "s"), format!("{:.1} %", 100.0 * part.seconds / whole.seconds)];
        rows.push(Row::new(&part.name, cells));
        list.extend(part.parts.iter().rev().map(|inner| (inner, part.name.clone())));
    }
    let shares = whole.parts.iter().map(|p| format!("{} {:.0} %", p.name, 100.0 * p.seconds / whole.seconds));
    Ok(Figure {
        caption: format!("{}: where {} go", whole.name, si(whole.seconds, "s")),
        label: format!("Bars of the parts of {}: {}.", whole.name, shares.collect::<Vec<_>>().join(", ")),
        wide: flame.draw(720)?,
        narrow: Some(flame.draw(350)?),
        legend: Vec::new(),
        numbers: Some(Table::new(format!("Parts of {}", whole.name), &["Part", "Of", "Time", "Share"], rows)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results(value: serde_json::Value) -> Vec<Measurement> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn operations_are_put_together_by_pass_the_largest_first() {
        let results = results(json!([
            {"name": "mlp", "parameters": {"pass": "forward"}, "seconds": {"samples": [1.0]}},
            {"name": "project", "parameters": {"pass": "forward"}, "seconds": {"samples": [2.0]}},
            {"name": "mlp", "parameters": {"pass": "backward"}, "seconds": {"samples": [5.0]}},
            {"name": "between operations", "parameters": {"pass": "all"}, "seconds": {"samples": [8.0]}},
            {"name": "training step", "parameters": {"pass": "all"}, "seconds": {"samples": [16.0]}},
        ]));
        let [whole] = &by_operation(&results)[..] else { panic!() };
        let mut all = Vec::new();
        spans(whole, 0, (0.0, 1.0), 1, &mut all);
        let seen: Vec<_> =
            all.iter().map(|span| (span.depth, span.share.0, span.share.1, span.name.as_str())).collect();
        let want = [
            (0, 0.0, 1.0, "training step 16 s"),
            (1, 0.0, 0.5, "between operations 8 s"),
            (1, 0.5, 0.8125, "backward 5 s"),
            (2, 0.5, 0.8125, "mlp 5 s"),
            (1, 0.8125, 1.0, "forward 3 s"),
            (2, 0.8125, 0.9375, "project 2 s"),
            (2, 0.9375, 1.0, "mlp 1 s"),
        ];
        assert_eq!(seen, want);
    }

    #[test]
    fn what_no_part_took_is_the_rest() {
        let results =
            results(json!([{"name": "link", "seconds": {"samples": [4.0]}, "parts": {"in": {"samples": [1.0]}}}]));
        let whole = by_part(&results[0]).unwrap();
        let parts: Vec<_> = whole.parts.iter().map(|part| (part.name.as_str(), part.seconds)).collect();
        assert_eq!((parts, whole.seconds), (vec![("in", 1.0), ("rest", 3.0)], 4.0));
    }
}
