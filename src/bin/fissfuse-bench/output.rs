//! Measurements as text, for people and for programs.

use clap::ValueEnum;
use fissfuse::printable::{printable, printable_json};
use fissfuse::profile::Timing;
use fissfuse::profile::measurement::{Measurement, Measurements};
use fissfuse::report::{markdown_table, table};
use serde_json::{Map, Value, json};

use super::compare::Findings;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for a terminal.
    Table,
    /// A table of Markdown.
    Md,
    /// A line for each row, in seconds and base units.
    Csv,
    /// One object with every sample (docs/bench.md has the schema).
    Json,
    /// One object for each row, on a line of its own.
    Jsonl,
}

/// What is shown of times, and how it is called.
const QUANTILES: [(&str, f64); 6] =
    [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Name of the whole among the parts of a run.
const WHOLE: &str = "end to end";

/// Prints a run.
pub fn text(run: &Measurements, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => document(serde_json::to_value(run)?)?,
        Format::Jsonl => printable_json(&lines(run)?).into_owned(),
        Format::Csv => csv(run)?,
        Format::Table | Format::Md => {
            let rows = Layout::of(run);
            let shown = rows.shown();
            let drawn = match format {
                Format::Md => markdown_table(&shown.0, shown.1),
                _ => table(&shown.0.iter().map(String::as_str).collect::<Vec<_>>(), shown.1),
            };
            let warnings = run.results.iter().flat_map(|r| r.warnings.iter().map(|w| (rows.label(r), w)));
            let warnings = warnings.map(|(row, warning)| format!("\nwarning: {row}: {warning}"));
            let advice = run.advice.iter().map(|advice| format!("\nadvice: {advice}"));
            let under: String = warnings.chain(advice).collect();
            let end = if under.is_empty() { "" } else { "\n" };
            printable(&format!("{}\n\n{drawn}\n{under}{end}", header(run, &rows))).into_owned()
        }
    })
}

/// A document of JSON that steers no terminal.
pub fn document(value: Value) -> anyhow::Result<String> {
    Ok(printable_json(&serde_json::to_string_pretty(&value)?).into_owned() + "\n")
}

/// Prints a run and what a comparison found, in JSON as one document.
pub fn compared(run: &Measurements, found: &Findings, format: Format, explain: bool) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => {
            let mut whole = serde_json::to_value(run)?;
            whole["comparison"] = serde_json::to_value(&found.0)?;
            document(whole)?
        }
        Format::Jsonl => text(run, format)? + &found.text(format, explain)?,
        _ => format!("{}\n{}", text(run, format)?, found.text(format, explain)?),
    })
}

/// Machine, what holds for all rows, and the ceilings.
fn header(run: &Measurements, rows: &Layout) -> String {
    let all = run.settings.iter().chain(rows.same.iter());
    let all: Vec<String> = all.map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value))).collect();
    let ceilings = run.ceilings.map(|ceilings| {
        let [flops, bytes] = [ceilings.flops_per_second, ceilings.bytes_per_second].map(|rate| rate / 1e9);
        format!("\nceilings of this run: {flops:.0} GFLOP/s, {bytes:.1} GB/s")
    });
    let (machine, version, commit) = (run.machine.describe(), &run.version, &run.commit);
    let all = if all.is_empty() { String::new() } else { format!("\n{}", all.join(", ")) };
    format!("{} {version} ({commit}), {machine}{all}{}", run.program, ceilings.unwrap_or_default())
}

/// Each name once, in the order in which they come first.
fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    names.fold(Vec::new(), |mut all, name| {
        if !all.contains(&name.as_str()) {
            all.push(name);
        }
        all
    })
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

/// The results, laid out: what is the same in all rows stands above them.
struct Layout<'a> {
    run: &'a Measurements,
    /// Parameters that have one value, and the names of the others.
    same: Map<String, Value>,
    varied: Vec<&'a str>,
    figures: Vec<&'a str>,
}

impl Layout<'_> {
    fn of(run: &Measurements) -> Layout<'_> {
        let names = unique(run.results.iter().flat_map(|r| r.parameters.keys()));
        let value = |name: &str| {
            let first = run.results.first()?.parameters.get(name)?;
            run.results.iter().all(|r| r.parameters.get(name) == Some(first)).then(|| first.clone())
        };
        let (mut same, mut varied) = (Map::new(), Vec::new());
        for name in names {
            match value(name) {
                Some(value) => drop(same.insert(name.into(), value)),
                None => varied.push(name),
            }
        }
        // What a row was asked for and what it did stand in one column.
        let figures = unique(run.results.iter().flat_map(|r| r.figures.keys()));
        let figures = figures.into_iter().filter(|name| !same.contains_key(*name) && !varied.contains(name)).collect();
        Layout { run, same, varied, figures }
    }

    /// A row's name with the parameters that tell it from the others.
    fn label(&self, row: &Measurement) -> String {
        let value =
            |name: &&str| row.parameters.get(*name).map(|value| format!("{} {}", name.replace('_', " "), plain(value)));
        std::iter::once(row.name.clone()).chain(self.varied.iter().filter_map(value)).collect::<Vec<_>>().join(", ")
    }

    /// Header and cells for people: times in milliseconds, figures in the units of [`scaled`].
    fn shown(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let timed = self.run.results.iter().any(|r| r.seconds.is_some());
        let parted = self.run.results.iter().any(|r| !r.parts.is_empty());
        let named = self.run.results.iter().any(|r| r.name != self.run.results[0].name);
        let mut header: Vec<String> = Vec::new();
        header.extend(named.then(String::new));
        header.extend(self.varied.iter().map(|name| name.replace('_', " ")));
        header.extend(parted.then(|| "part".into()));
        if timed {
            header.push("runs".into());
            header.extend(QUANTILES.map(|(name, _)| format!("{name} ms")));
            header.push("noise %".into());
        }
        header.extend(self.figures.iter().map(|name| scaled(name).0));
        let mut rows = Vec::new();
        for result in &self.run.results {
            let parts = result.parts.iter().map(|(name, timing)| (name.as_str(), Some(timing), false));
            for (part, timing, whole) in parts.chain([(WHOLE, result.seconds.as_ref(), true)]) {
                let mut row: Vec<String> = Vec::new();
                row.extend(named.then(|| result.name.clone()));
                row.extend(self.varied.iter().map(|name| result.parameters.get(*name).map_or(String::new(), plain)));
                row.extend(parted.then(|| part.to_string()));
                if timed {
                    row.extend(times(timing));
                }
                let figure = |name: &&str| match result.figures.get(*name) {
                    Some(value) if whole => value.map_or("-".into(), |value| digits(value / scaled(name).1)),
                    _ => String::new(),
                };
                row.extend(self.figures.iter().map(figure));
                rows.push(row);
            }
        }
        (header, rows)
    }
}

fn times(timing: Option<&Timing>) -> Vec<String> {
    let Some(timing) = timing else { return vec![String::new(); 2 + QUANTILES.len()] };
    let quantiles = QUANTILES.iter().map(|(_, share)| digits(1e3 * timing.quantile(*share)));
    let noise = format!("{:.1}", 100.0 * timing.noise());
    [timing.runs().to_string()].into_iter().chain(quantiles).chain([noise]).collect()
}

/// A figure's column and what a unit of it is there.
fn scaled(figure: &str) -> (String, f64) {
    let name = figure.replace('_', " ");
    match figure {
        _ if figure.ends_with("flops_per_second") => (name.replace("flops per second", "GFLOP/s"), 1e9),
        _ if figure.ends_with("bytes_per_second") => (name.replace("bytes per second", "GB/s"), 1e9),
        _ if figure.ends_with("flops") => (name.replace("flops", "GFLOP"), 1e9),
        _ if figure.contains("bytes") => (name.replace("bytes", "MB"), 1e6),
        _ if figure.contains("share") => (name.replace("share", "%"), 0.01),
        _ if figure.ends_with("per_second") => (name.replace(" per second", "/s"), 1.0),
        _ => (name, 1.0),
    }
}

/// Four digits that count, and whole numbers whole.
pub fn digits(value: f64) -> String {
    if value == 0.0 || (value.fract() == 0.0 && value.abs() < 1e9) {
        return format!("{value:.0}");
    }
    let before = value.abs().log10().floor() as i32;
    format!("{value:.*}", usize::try_from(3 - before.clamp(-3, 3)).unwrap_or(0))
}

/// A line of CSV for each row and each of its parts.
fn csv(run: &Measurements) -> anyhow::Result<String> {
    let rows = Layout::of(run);
    let mut out = csv::Writer::from_writer(Vec::new());
    let parameters: Vec<&str> = rows.same.keys().map(String::as_str).chain(rows.varied.iter().copied()).collect();
    let quantiles = QUANTILES.map(|(name, _)| name);
    let fixed = ["name"].into_iter().chain(parameters.iter().copied()).chain(["part", "runs"]);
    out.write_record(fixed.chain(quantiles).chain(["noise"]).chain(rows.figures.iter().copied()))?;
    for result in &run.results {
        let parts = result.parts.iter().map(|(name, timing)| (name.as_str(), Some(timing)));
        for (part, timing) in parts.chain([(WHOLE, result.seconds.as_ref())]) {
            let mut line = vec![result.name.clone()];
            line.extend(parameters.iter().map(|name| result.parameters.get(*name).map_or(String::new(), plain)));
            line.push(part.into());
            line.push(timing.map_or(String::new(), |timing| timing.runs().to_string()));
            let quantile = |(_, share): &(&str, f64)| timing.map_or(String::new(), |t| t.quantile(*share).to_string());
            line.extend(QUANTILES.iter().map(quantile));
            line.push(timing.map_or(String::new(), |timing| timing.noise().to_string()));
            let figure = |name: &&str| result.figures.get(*name).copied().flatten().filter(|_| part == WHOLE);
            line.extend(rows.figures.iter().map(|name| figure(name).map_or(String::new(), |value| value.to_string())));
            out.write_record(line)?;
        }
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}

/// A line of JSON for each row, with what holds for all.
fn lines(run: &Measurements) -> anyhow::Result<String> {
    let line = |result: &Measurement| {
        let mut line = json!({"schema": run.schema, "program": run.program, "version": run.version, "commit": run.commit,
            "command": run.command, "date": run.date, "machine": run.machine, "settings": run.settings,
            "ceilings": run.ceilings});
        let result = serde_json::to_value(result)?;
        if let (Some(line), Value::Object(result)) = (line.as_object_mut(), result) {
            line.extend(result);
        }
        Ok(serde_json::to_string(&line)? + "\n")
    };
    run.results.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Measurements {
        let mut run = Measurements::begin("step", None).unwrap();
        for mentions in [1, 2] {
            let parameters = json!({"mentions": mentions, "candidates": 10}).as_object().unwrap().clone();
            let mut row = Measurement::new("a, step", parameters);
            row.seconds = Some(Timing::new(vec![0.002, 0.001, 0.003]).unwrap());
            row.parts.insert("enqueue".into(), Timing::new(vec![0.0005]).unwrap());
            run.results.push(row.with_rate("flops", 4e9).with("noise_share", 0.5));
        }
        run.advice.push("do less".into());
        run
    }

    #[test]
    fn a_table_has_what_varies_and_its_header_the_rest() {
        let text = text(&run(), Format::Md).unwrap();
        assert!(text.contains("candidates 10\n") && !text.contains("| candidates"), "{text}");
        let line = text.lines().find(|line| line.contains("end to end")).unwrap();
        assert_eq!(line, "| 1 | end to end | 3 | 1 | 2 | 3 | 3 | 3 | 3 | 100.0 | 4 | 2000 | 50 |");
        assert!(text.contains("| 1 | enqueue | 1 | 0.5000 |") && text.contains("\nadvice: do less"), "{text}");
    }

    #[test]
    fn a_terminal_is_not_steered_by_rows_warnings_and_advice() {
        let mut run = run();
        run.results[0].warnings.push("w\u{1b}[2J".into());
        run.results[0].name = "n\u{202e}".into();
        run.advice.push("a\u{9b}".into());
        for format in [Format::Table, Format::Md, Format::Json, Format::Jsonl] {
            let text = text(&run, format).unwrap();
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{text:?}");
        }
        let shown = text(&run, Format::Table).unwrap();
        assert!(shown.contains(r"w\u{1b}[2J") && shown.contains(r"a\u{9b}"), "{shown}");
    }

    #[test]
    fn programs_get_base_units() {
        let text = |format| text(&run(), format).unwrap();
        let csv = text(Format::Csv);
        assert_eq!(
            csv.lines().next().unwrap().split(',').take(5).collect::<Vec<_>>(),
            ["name", "candidates", "mentions", "part", "runs"]
        );
        assert!(csv.contains("\"a, step\",10,1,end to end,3,0.001,0.002,"), "{csv}");
        let lines: Vec<Value> = text(Format::Jsonl).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[1]["parameters"]["mentions"], &lines[0]["schema"]), (2, &2.into(), &1.into()));
        let whole: Measurements = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(whole.results, run().results);
    }

    #[test]
    fn numbers_have_four_digits_that_count() {
        assert_eq!(
            [0.0, 12.0, 0.012345, 1.23456, 123.456, 98765.4].map(digits),
            ["0", "12", "0.01235", "1.235", "123.5", "98765"]
        );
    }
}
