//! What a benchmark measured, in the one form that all of them write (docs/bench.md has the schema).

use std::path::Path;

use chrono::{SecondsFormat, Utc};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::machine::Machine;
use super::timing::Timing;
use crate::device::{Ceilings, Gpu};
use crate::error::{Error, Result};
use crate::fields::parse_json;
use crate::files::{read_text, write_whole};

/// Version of the files' schema. It rises when a field changes its meaning or goes.
pub const SCHEMA: u64 = 1;

/// A run of a benchmark: of one command, on one machine, by one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurements {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u64,
    /// The program.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// What was measured: the subcommand.
    pub command: String,
    /// When it began (RFC 3339, UTC).
    pub date: String,
    /// Where it ran.
    pub machine: Machine,
    /// What holds for all results.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// What the machine does at most, measured in the same run.
    #[serde(default)]
    pub ceilings: Option<Ceilings>,
    /// One for each row.
    pub results: Vec<Measurement>,
    /// What the figures advise.
    #[serde(default)]
    pub advice: Vec<String>,
}

/// One row: a piece of work with its times and figures. Name and parameters tell it from the others of its file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was done.
    pub name: String,
    /// Its sizes and ways.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// Times of the runs, if it was timed.
    #[serde(default)]
    pub seconds: Option<Timing>,
    /// The clock of the device's multiprocessors during each run, in MHz, `None` where it did not say; nothing on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks_mhz: Option<Vec<Option<f64>>>,
    /// Times of parts of the runs.
    #[serde(default)]
    pub parts: IndexMap<String, Timing>,
    /// Counts and rates, in base units; `None` where it is not known.
    #[serde(default)]
    pub figures: IndexMap<String, Option<f64>>,
    /// What keeps the figures from being trusted.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Measurements {
    /// Of a command that begins now.
    pub fn begin(command: &str, gpu: Option<&Gpu>) -> Result<Measurements> {
        Ok(Measurements {
            schema: SCHEMA,
            program: "fissfuse-bench".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("FISSFUSE_COMMIT").into(),
            command: command.into(),
            date: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            machine: Machine::this(gpu)?,
            settings: Map::new(),
            ceilings: None,
            results: Vec::new(),
            advice: Vec::new(),
        })
    }

    /// Reads a file that a benchmark wrote. Fails if it is of a newer schema, or holds no results.
    pub fn read(path: &Path) -> Result<Measurements> {
        let text = read_text(path)?;
        let invalid = |reason: String| Error::file(path, reason);
        let value = parse_json(path, &text)?;
        match value.get("schema").and_then(Value::as_u64) {
            Some(SCHEMA) => {}
            Some(newer) if newer > SCHEMA => {
                let reason = format!("schema {newer} of measurements; this program reads {SCHEMA}: take a newer one");
                return Err(invalid(reason));
            }
            _ => return Err(invalid("no measurements of fissfuse-bench: it has no `schema` of theirs".into())),
        }
        let read: Measurements = serde_json::from_value(value).map_err(|e| invalid(e.to_string()))?;
        match read.results.is_empty() {
            true => Err(invalid("holds no results".into())),
            false => Ok(read),
        }
    }

    /// Writes the file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::invalid(e.to_string()))?;
        write_whole(path, |out| writeln!(out, "{text}"))
    }

    /// The result of this name and these parameters.
    pub fn find(&self, name: &str, parameters: &Map<String, Value>) -> Option<&Measurement> {
        self.results.iter().find(|result| result.name == name && &result.parameters == parameters)
    }
}

impl Measurement {
    /// Without times and figures yet.
    pub fn new(name: &str, parameters: Map<String, Value>) -> Measurement {
        Measurement { name: name.into(), parameters, ..Measurement::default() }
    }

    /// With a figure more. One that is not finite is not known.
    pub fn with(mut self, figure: &str, value: f64) -> Measurement {
        self.figures.insert(figure.into(), Some(value).filter(|value| value.is_finite()));
        self
    }

    /// With an amount of work, and what of it the median run does in a second: `flops` gives `flops` and `flops_per_second`.
    pub fn with_rate(self, figure: &str, amount: f64) -> Measurement {
        let rate = self.seconds.as_ref().map(|seconds| amount / seconds.p50());
        let measurement = self.with(figure, amount);
        match rate {
            Some(rate) => measurement.with(&format!("{figure}_per_second"), rate),
            None => measurement,
        }
    }

    /// With the least time that FLOPs and bytes take, as a share of the median run, where all of them are known.
    pub fn with_roofline(self, ceilings: Option<Ceilings>) -> Measurement {
        let of = |ceilings: Ceilings| {
            let least = ceilings.least_seconds(self.figure("flops")?, self.figure("bytes")?);
            Some(least / self.seconds.as_ref()?.p50())
        };
        match ceilings.and_then(of) {
            Some(share) => self.with("roofline_share", share),
            None => self,
        }
    }

    /// A figure, if it is known.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied().flatten()
    }

    /// A parameter that is a text.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).and_then(Value::as_str)
    }

    /// Runs in cycles of the device's clock, if it is known of each.
    pub fn cycles(&self) -> Option<Timing> {
        cycles(self.seconds.as_ref()?.samples(), self.clocks_mhz.as_deref()?)
    }

    /// Name and parameters in a line.
    pub fn label(&self) -> String {
        let parameters = self.parameters.iter().map(|(name, value)| match value {
            Value::String(text) => format!(", {name} {text}"),
            value => format!(", {name} {value}"),
        });
        std::iter::once(self.name.clone()).chain(parameters).collect()
    }
}

/// What runs took in cycles: times and clocks in MHz, each of which must be known.
pub fn cycles(seconds: &[f64], clocks_mhz: &[Option<f64>]) -> Option<Timing> {
    if seconds.len() != clocks_mhz.len() {
        return None;
    }
    let cycles = seconds.iter().zip(clocks_mhz).map(|(seconds, clock)| Some(seconds * 1e6 * (*clock)?));
    Timing::new(cycles.collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_give_back_what_was_written_and_refuse_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let mut run = Measurements::begin("step", None).unwrap();
        run.write(&path).unwrap();
        assert!(Measurements::read(&path).unwrap_err().to_string().contains("holds no results"));
        let timing = Timing::new(vec![0.5, 0.25]).unwrap();
        let result = Measurement { seconds: Some(timing), ..Measurement::new("step", Map::new()) };
        run.results.push(result.with_rate("flops", 10.0).with("lost", f64::NAN));
        run.write(&path).unwrap();
        let read = Measurements::read(&path).unwrap();
        assert_eq!(read.results, run.results);
        assert_eq!(read.results[0].figures["flops_per_second"], Some(40.0));
        assert_eq!(read.find("step", &Map::new()).unwrap().figures["lost"], None);
        let text = std::fs::read_to_string(&path).unwrap();
        for (wrong, says) in [
            (text.replace("\"schema\": 1", "\"schema\": 2"), "schema 2"),
            (text.replace("\"schema\": 1", "\"scheme\": 1"), "no measurements"),
            (text.replace("\"samples\": [", "\"samples\": [-1, "), "which no clock gives"),
            (text[..text.len() / 2].to_string(), "was it cut short?"),
            (String::new(), "was it cut short?"),
        ] {
            std::fs::write(&path, wrong).unwrap();
            let error = Measurements::read(&path).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("a.json"), "{error}");
        }
    }
}
