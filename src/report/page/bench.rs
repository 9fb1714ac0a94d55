//! Measurements of `fissfuse-bench`, as its `--output json` writes them. What a file leaves out is none.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::block::Block;
use super::input::From;

/// The latest layout of such a file that is read.
pub const SCHEMA: u64 = 1;

/// A file of measurements.
#[derive(Debug, Deserialize)]
pub struct Measurements {
    /// Which of its commands measured.
    pub command: String,
    /// When.
    #[serde(default)]
    pub date: Option<String>,
    /// Commit of the program.
    #[serde(default)]
    pub commit: Option<String>,
    /// On what.
    #[serde(default)]
    pub machine: Machine,
    /// What the machine reaches, measured in the same run.
    #[serde(default)]
    pub ceilings: Option<Ceilings>,
    /// What was measured.
    pub results: Vec<Measured>,
}

impl From<Measurements> {
    /// The heading of what is from this file.
    pub fn heading(&self) -> Block {
        let Measurements { command, date, commit, machine, .. } = &self.what;
        let commit = commit.as_ref().map(|commit| format!("commit {commit}"));
        let source: Vec<String> = [Some(self.source()), date.clone(), commit].into_iter().flatten().collect();
        Block::heading(format!("fissfuse-bench {command}: {}", machine.words()), &source.join(", "))
    }
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Its processor.
    pub processor: Option<String>,
    /// Threads that computed.
    pub threads: Option<usize>,
    /// Its GPU, if that computed.
    pub gpu: Option<Card>,
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Card {
    /// Its name.
    pub name: Option<String>,
}

impl Machine {
    /// In words.
    pub fn words(&self) -> String {
        let processor = self.processor.as_deref().unwrap_or("unknown processor");
        let threads = self.threads.map(|threads| format!(", {threads} threads")).unwrap_or_default();
        match self.gpu.as_ref().map(|gpu| gpu.name.as_deref().unwrap_or("a GPU")) {
            Some(gpu) => format!("{gpu}; {processor}{threads}"),
            None => format!("{processor}{threads}"),
        }
    }
}

/// What a machine reaches.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Ceilings {
    /// FLOPs per second.
    pub flops_per_second: f64,
    /// Bytes per second from and to memory.
    pub bytes_per_second: f64,
}

impl Ceilings {
    /// FLOPs per second that are within reach at an intensity (FLOPs per byte).
    pub fn at(&self, intensity: f64) -> f64 {
        self.flops_per_second.min(intensity * self.bytes_per_second)
    }
}

/// A result.
#[derive(Debug, Deserialize)]
pub struct Measured {
    /// What was measured.
    pub name: String,
    /// With what.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// How long it took.
    #[serde(default)]
    pub seconds: Option<Seconds>,
    /// How long its parts took.
    #[serde(default)]
    pub parts: Map<String, Value>,
    /// What was counted.
    #[serde(default)]
    pub figures: BTreeMap<String, Option<f64>>,
    /// What to know of it.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Measured {
    /// A figure, if it is a number.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied().flatten().filter(|value| value.is_finite())
    }

    /// A parameter's text.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).and_then(Value::as_str)
    }

    /// Its name with its parameters.
    pub fn title(&self) -> String {
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let parameters: Vec<String> =
            self.parameters.iter().map(|(name, value)| format!("{name} {}", shown(value))).collect();
        match parameters.is_empty() {
            true => self.name.clone(),
            false => format!("{} ({})", self.name, parameters.join(", ")),
        }
    }

    /// The parts with what they took, in the order of the file.
    pub fn parts(&self) -> Vec<(&str, Seconds)> {
        self.parts.iter().filter_map(|(name, value)| Some((name.as_str(), Seconds::deserialize(value).ok()?))).collect()
    }
}

/// Times of several runs, in seconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Seconds {
    /// How many there were.
    pub runs: Option<u64>,
    /// The shortest.
    pub min: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// Quantiles.
    pub p90: Option<f64>,
    /// See `p90`.
    pub p99: Option<f64>,
    /// See `p90`.
    pub p999: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
    /// The middle half's width as a share of the median.
    pub noise: Option<f64>,
    /// Each.
    pub samples: Vec<Option<f64>>,
}

impl Seconds {
    /// The median, if it is a time.
    pub fn median(&self) -> Option<f64> {
        self.p50.filter(|seconds| seconds.is_finite() && *seconds > 0.0)
    }

    /// The samples that are times, the shortest first.
    pub fn sorted(&self) -> Vec<f64> {
        let mut samples: Vec<f64> =
            self.samples.iter().copied().flatten().filter(|s| s.is_finite() && *s > 0.0).collect();
        samples.sort_by(f64::total_cmp);
        samples
    }
}
