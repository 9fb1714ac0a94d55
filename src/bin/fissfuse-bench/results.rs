//! The results of a run of scripts/gpu-bundle/run.sh as a page for docs/results/.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fissfuse::files::read_text;
use fissfuse::report::markdown_table;
use serde_json::Value;

/// Write what a run of the GPU bundle measured as a page of Markdown, with the predictions beside.
///
/// DIR is what the bundle's run.sh wrote: env.txt says where, runs.jsonl has a line for each program that ran or was skipped.
#[derive(clap::Args)]
pub struct ResultsArgs {
    /// Folder of the results.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,

    /// Table of what is shown, with what was predicted.
    #[arg(long, value_name = "FILE")]
    pub predictions: PathBuf,
}

pub fn results(args: ResultsArgs) -> anyhow::Result<()> {
    let results = Results::read(&args.folder, &args.predictions)?;
    print!("{}", results.page());
    Ok(())
}

/// A line of predictions.tsv: where a number stands, what it is, and what each card was predicted to give.
struct Measure {
    run: String,
    pointer: String,
    what: String,
    unit: String,
    predicted: Vec<String>,
}

struct Results {
    /// `name: value` lines of env.txt, up to its first empty line.
    about: Vec<(String, String)>,
    runs: Vec<Value>,
    cards: Vec<String>,
    measures: Vec<Measure>,
}

/// Units per second, or per unit of rate.
const UNITS: [(&str, f64); 5] = [("s", 1.0), ("ms", 1e3), ("us", 1e6), ("GB/s", 1e-9), ("TFLOP/s", 1e-12)];

impl Results {
    fn read(folder: &Path, predictions: &Path) -> anyhow::Result<Results> {
        let about = read_text(&folder.join("env.txt"))?;
        let about = about.lines().take_while(|line| !line.is_empty());
        let about = about.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value.into()));
        let path = folder.join("runs.jsonl");
        let mut runs = Vec::new();
        for (i, line) in read_text(&path)?.lines().enumerate() {
            // What was cut off while it was written is no result.
            match serde_json::from_str::<Value>(line) {
                Ok(run) if run["name"].is_string() => runs.push(run),
                _ => eprintln!("warning: {}:{}: no result of a run; left out", path.display(), i + 1),
            }
        }
        let (cards, measures) =
            read_measures(&read_text(predictions)?).with_context(|| predictions.display().to_string())?;
        Ok(Results { about: about.collect(), runs, cards, measures })
    }

    /// What was measured, in the measure's unit, of the last run of that name that has it.
    fn value(&self, measure: &Measure) -> Option<f64> {
        let scale = UNITS.iter().find(|(unit, _)| *unit == measure.unit)?.1;
        let of_name = self.runs.iter().rev().filter(|run| run["name"] == measure.run.as_str());
        of_name.filter_map(|run| run["result"].pointer(&measure.pointer)?.as_f64()).next().map(|value| scale * value)
    }

    fn page(&self) -> String {
        let about: HashMap<&str, &str> =
            self.about.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let title = ["card", "date"].map(|name| about.get(name).copied().unwrap_or("unknown"));
        let mut page = format!("# {}, {}\n\n", title[0], title[1]);
        page += &markdown_table(&["", ""], self.about.iter().map(|(name, value)| vec![name.clone(), value.clone()]));
        let predicted = self.cards.iter().map(|card| format!("predicted, {card}"));
        let header: Vec<String> =
            ["what".to_string(), "unit".into()].into_iter().chain(predicted).chain(["measured here".into()]).collect();
        let rows = self.measures.iter().filter(|m| self.value(m).is_some() || m.predicted.iter().any(|p| p != "-"));
        let rows = rows.map(|m| {
            let measured = self.value(m).map_or_else(|| "-".into(), digits);
            let first = [m.what.clone(), m.unit.clone()];
            first.into_iter().chain(m.predicted.clone()).chain([measured]).collect()
        });
        page +=
            "\n## Measured\n\nPredictions were made by arithmetic before any card was at hand. Times are medians.\n\n";
        page += &markdown_table(&header, rows);
        let peers: Vec<Vec<String>> = self.runs.iter().flat_map(peer_rows).collect();
        if !peers.is_empty() {
            page += "\n## Beside PyTorch, in turn\n\n";
            page += &markdown_table(&["what", "PyTorch ms", "FissFuse ms", "PyTorch / FissFuse"], peers);
        }
        page += "\n## What ran\n\n";
        page += &markdown_table(&["part", "what", "seconds", "how it ended"], self.runs.iter().map(ending));
        page
    }
}

/// The cards of the header and the lines below it.
fn read_measures(text: &str) -> anyhow::Result<(Vec<String>, Vec<Measure>)> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let fields = |line: &str| line.split('\t').map(String::from).collect::<Vec<_>>();
    let (_, header) = lines.next().context("has no header")?;
    let cards: Vec<String> = fields(header).into_iter().skip(4).collect();
    let measures = lines.map(|(i, line)| {
        let [run, pointer, what, unit, predicted @ ..] = &fields(line)[..] else {
            bail!("line {}: needs run, pointer, what, unit", i + 1);
        };
        if predicted.len() != cards.len() || UNITS.iter().all(|(known, _)| known != unit) {
            bail!("line {}: needs a known unit and a prediction or - for each of {cards:?}", i + 1);
        }
        let [run, pointer, what, unit] = [run, pointer, what, unit].map(String::clone);
        Ok(Measure { run, pointer, what, unit, predicted: predicted.to_vec() })
    });
    let measures = measures.collect::<anyhow::Result<_>>()?;
    Ok((cards, measures))
}

/// Three significant digits.
fn digits(value: f64) -> String {
    let before = value.abs().log10().floor() as i32;
    format!("{value:.*}", usize::try_from(2 - before.clamp(-6, 2)).unwrap_or(0))
}

/// What a script of benches/peers measured, side by side.
fn peer_rows(run: &Value) -> Vec<Vec<String>> {
    let rows = run["result"]["peers"].as_array().into_iter().flatten();
    let row = |row: &Value| {
        let [theirs, ours] = ["theirs", "ours"].map(|side| row[side].as_f64());
        let (theirs, ours) = (theirs?, ours?);
        Some(vec![
            row["what"].as_str()?.into(),
            digits(1e3 * theirs),
            digits(1e3 * ours),
            format!("{:.2}", theirs / ours),
        ])
    };
    rows.filter_map(row).collect()
}

fn ending(run: &Value) -> Vec<String> {
    let text = |name: &str| run[name].as_str().map(String::from);
    let ended = match (text("failed"), text("skipped")) {
        (Some(why), _) => format!("**failed**: {why}"),
        (_, Some(why)) => format!("skipped: {why}"),
        _ => "done".into(),
    };
    let seconds = run["wall_seconds"].as_f64().map_or_else(String::new, |s| format!("{s:.0}"));
    vec![text("part").unwrap_or_default(), text("name").unwrap_or_default(), seconds, ended]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREDICTIONS: &str = include_str!("../../../scripts/gpu-bundle/predictions.tsv");

    fn page(runs: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("env.txt", "card: RTX 3090\ndate: 2026-01-02\n\nraw: not shown\n");
        write("runs.jsonl", runs);
        write("predictions.tsv", PREDICTIONS);
        Results::read(folder.path(), &folder.path().join("predictions.tsv")).unwrap().page()
    }

    #[test]
    fn measured_values_stand_beside_the_predictions() {
        let page = page(
            "{\"name\":\"step-wikimel\",\"part\":\"times\",\"wall_seconds\":4.2,\"result\":{\"results\":[{\"seconds\":{\"p50\":0.0201}}]}}\n\
             {\"name\":\"ncu\",\"part\":\"profile\",\"skipped\":\"no ncu | here\"}\n\
             {\"name\":\"peer\",\"result\":{\"peers\":[{\"what\":\"a step\",\"theirs\":0.5,\"ours\":0.1}]}}\n\
             {\"name\":\"cut off",
        );
        assert!(page.starts_with("# RTX 3090, 2026-01-02\n") && !page.contains("raw"), "{page}");
        let line = |starts: &str| page.lines().find(|line| line.starts_with(starts)).unwrap().to_string();
        assert!(line("| step, WikiMEL |").ends_with("| ms | 19.9 | 5.3 | 20.1 |"), "{page}");
        assert!(line("| step, WikiMEL, as a graph |").ends_with("| - |"), "{page}");
        assert_eq!(line("| profile |"), "| profile | ncu |  | skipped: no ncu \\| here |");
        assert_eq!(line("| a step |"), "| a step | 500 | 100 | 5.00 |");
    }

    #[test]
    fn a_table_of_predictions_that_lacks_a_field_is_refused_with_its_line() {
        let header = "run\tpointer\twhat\tunit\tcard\n";
        for wrong in ["a\t/b\tc\tms\n", "a\t/b\tc\tweeks\t-\n", "a\n"] {
            let error = read_measures(&format!("# comment\n{header}{wrong}")).err().unwrap().to_string();
            assert!(error.contains("line 3"), "{error}");
        }
        assert!(read_measures("").is_err());
    }
}
