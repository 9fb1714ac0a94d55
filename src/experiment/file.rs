//! Files that say what an experiment compares.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::datasets::{DatasetSource, wrong_datasets};
use super::question::Question;
use crate::error::{Error, Result};
use crate::files;
use crate::kar::Scoring;

/// Settings to try, by their names such as `train.learning_rate`.
pub type Grid = BTreeMap<String, Vec<toml::Value>>;

/// Most points of a grid: each is a training.
const MOST_POINTS: usize = 1000;

/// Bytes of the longest name of a row or a question.
const LONGEST_NAME: usize = 100;

/// What lies beside the rows' folders.
const FILES: [&str; 3] = ["experiment.json", "summary.json", "summary.txt"];

/// The experiments of the paper by name.
pub const BUILT_IN: [(&str, &str); 10] = [
    ("main", include_str!("../../configs/experiments/main.toml")),
    ("ablation", include_str!("../../configs/experiments/ablation.toml")),
    ("strategy", include_str!("../../configs/experiments/strategy.toml")),
    ("top-k", include_str!("../../configs/experiments/top-k.toml")),
    ("llm-size", include_str!("../../configs/experiments/llm-size.toml")),
    ("data-scale", include_str!("../../configs/experiments/data-scale.toml")),
    ("generality", include_str!("../../configs/experiments/generality.toml")),
    ("errors", include_str!("../../configs/experiments/errors.toml")),
    ("qualitative", include_str!("../../configs/experiments/qualitative.toml")),
    ("complexity", include_str!("../../configs/experiments/complexity.toml")),
];

/// What an experiment compares.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentFile {
    /// The table's title.
    pub title: String,
    /// Number of the paper's table that its values may stand beside.
    #[serde(default)]
    pub paper: Option<u8>,
    /// Each row is trained once with each of these.
    pub seeds: Vec<u64>,
    /// The row that all others are compared with, mention by mention.
    #[serde(default)]
    pub against: Option<String>,
    /// Whether the table has columns of parameters and FLOPs.
    #[serde(default)]
    pub complexity: bool,
    /// How many mentions are shown that the row `against` links rightly and no other does.
    #[serde(default)]
    pub examples: usize,
    /// Settings of all rows, as far as their models heed them.
    #[serde(default)]
    pub base: Overrides,
    /// Settings that are chosen for each row, by the validation MRR with the first seed.
    #[serde(default)]
    pub grid: Grid,
    /// What is compared.
    pub rows: Vec<Row>,
    /// What a language model is asked about rankings.
    #[serde(default)]
    pub rerank: Vec<Question>,
    /// Datasets that the table is over, if the file says which.
    #[serde(default)]
    pub dataset: Vec<DatasetSource>,
}

/// Parts of a run's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Of `[model]`.
    pub model: toml::Table,
    /// Of `[train]`.
    pub train: toml::Table,
}

/// A row of the table: a configuration to train, or a run file that is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its name in the paper's table, if it is another.
    #[serde(default)]
    pub paper: Option<String>,
    /// Its settings in `[model]`.
    #[serde(default)]
    pub model: toml::Table,
    /// Its settings in `[train]`.
    #[serde(default)]
    pub train: toml::Table,
    /// What to try in place of the experiment's grid.
    #[serde(default)]
    pub grid: Option<Grid>,
    /// Whether the row comes from a run file, given by `--run NAME=FILE`.
    #[serde(default)]
    pub run_file: bool,
}

impl ExperimentFile {
    /// Reads a built-in experiment by its name, or a file.
    pub fn open(name: &str) -> Result<ExperimentFile> {
        let path = Path::new(name);
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return ExperimentFile::parse(Path::new(&format!("configs/experiments/{name}.toml")), text);
        }
        if !path.exists() {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            let reason = format!("is no file and no experiment; there are {}", names.join(", "));
            return Err(Error::file(path, reason));
        }
        ExperimentFile::parse(path, &files::read_text_or_stream(path)?)
    }

    /// Parses a file and says all that makes no sense of itself.
    pub fn parse(path: &Path, text: &str) -> Result<ExperimentFile> {
        let file: ExperimentFile =
            toml::from_str(text).map_err(|e| Error::file(path, format!("is no experiment:\n{e}")))?;
        let wrong = file.wrong();
        if wrong.is_empty() { Ok(file) } else { Err(Error::file(path, wrong.join("; "))) }
    }

    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.seeds.is_empty() {
            wrong.push("seeds is empty: give one at least".to_string());
        }
        if self.seeds.iter().collect::<BTreeSet<_>>().len() < self.seeds.len() {
            wrong.push("seeds has one twice".to_string());
        }
        if self.rows.is_empty() {
            wrong.push("there is no [[rows]]".to_string());
        }
        if let Some(against) = self.against.as_ref().filter(|name| !self.rows.iter().any(|row| row.name == **name)) {
            wrong.push(format!("against = \"{against}\" is no row"));
        }
        if self.examples > 0 && self.against.is_none() {
            wrong.push("examples needs a row to be right: set against".to_string());
        }
        if [&self.base.train].into_iter().chain(self.rows.iter().map(|row| &row.train)).any(|t| t.contains_key("seed"))
        {
            wrong.push("train.seed has no effect: seeds lists them".to_string());
        }
        let mut folders = BTreeSet::new();
        for row in &self.rows {
            wrong.extend(wrong_name(&row.name));
            if !folders.insert(folder_name(&row.name)) {
                wrong.push(format!("two rows are called `{}`, or nearly so", row.name));
            }
            wrong.extend(row.wrong());
        }
        self.rows
            .iter()
            .filter_map(|row| row.grid.as_ref())
            .chain([&self.grid])
            .for_each(|g| wrong.extend(wrong_grid(g)));
        let mut names = BTreeSet::new();
        for question in &self.rerank {
            wrong.extend(wrong_name(&question.name));
            if !names.insert(folder_name(&question.name)) {
                wrong.push(format!("two of [[rerank]] are called `{}`, or nearly so", question.name));
            }
            let settings = question.settings(Scoring::default());
            let checked = settings.check().and_then(|()| if question.fuse { settings.check_fusable() } else { Ok(()) });
            if let Err(error) = checked {
                wrong.push(format!("rerank `{}`: {error}", question.name));
            }
            wrong.extend(self.wrong_row_of(question));
        }
        wrong.extend(wrong_datasets(&self.dataset));
        wrong
    }

    /// What is wrong with the row that a question makes, if it makes one.
    fn wrong_row_of(&self, question: &Question) -> Option<String> {
        let (of, name) = (question.of.as_ref()?, &question.name);
        if self.rows.iter().any(|row| folder_name(&row.name) == folder_name(name)) {
            return Some(format!("a row and one of [[rerank]] that makes a row are called `{name}`, or nearly so"));
        }
        match self.rows.iter().find(|row| row.name == *of) {
            None => Some(format!("rerank `{name}`: of = \"{of}\" is no row")),
            Some(row) if row.run_file => Some(format!(
                "rerank `{name}`: `{of}` is a run file; `fissfuse rerank` re-ranks it, and gives a run file"
            )),
            Some(_) => None,
        }
    }
}

impl Row {
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.run_file && !(self.model.is_empty() && self.train.is_empty() && self.grid.is_none()) {
            wrong.push(format!("row `{}` is a run file and has settings", self.name));
        }
        for key in self.grid.iter().flat_map(Grid::keys) {
            let set = key.split_once('.').is_some_and(|(table, key)| match table {
                "model" => self.model.contains_key(key),
                _ => self.train.contains_key(key),
            });
            if set {
                wrong.push(format!("row `{}` has `{key}` both as a setting and in its grid", self.name));
            }
        }
        wrong
    }
}

/// What is wrong with a name that is to be a folder's.
pub(super) fn wrong_name(name: &str) -> Option<String> {
    let folder = folder_name(name);
    if folder.is_empty() {
        return Some(format!("the name `{name}` has neither letter nor digit, for its folder"));
    }
    if folder.len() > LONGEST_NAME {
        return Some(format!("the name `{name}` is longer than {LONGEST_NAME} bytes, too long for a folder"));
    }
    FILES.contains(&folder.as_str()).then(|| format!("the name `{name}` is that of a file in the experiment's folder"))
}

fn wrong_grid(grid: &Grid) -> Vec<String> {
    let mut wrong = Vec::new();
    let points = grid.values().fold(1, |points: usize, values| points.saturating_mul(values.len()));
    if points > MOST_POINTS {
        wrong.push(format!("a grid has {points} points, and {MOST_POINTS} are the most"));
    }
    for (key, values) in grid {
        let of_a_table =
            key.split_once('.').is_some_and(|(table, key)| ["model", "train"].contains(&table) && !key.is_empty());
        if !of_a_table {
            wrong.push(format!("grid: `{key}` is no setting; give one like \"train.learning_rate\""));
        }
        if key == "train.seed" {
            wrong.push("grid: `train.seed` is not to be chosen; seeds lists them".to_string());
        }
        if values.is_empty() {
            wrong.push(format!("grid: `{key}` has no values"));
        }
        let distinct = values.iter().map(|value| folder_name(&value.to_string())).collect::<BTreeSet<_>>();
        if distinct.len() < values.len() {
            wrong.push(format!("grid: `{key}` has a value twice"));
        }
    }
    wrong
}

/// A name as one folder's: letters, digits, dots, equals signs and hyphens.
pub(super) fn folder_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || ".=,".contains(c) { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(plain).collect();
    name.trim_matches(['-', '.']).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_experiments_make_sense() {
        for (name, _) in BUILT_IN {
            let file = ExperimentFile::open(name).unwrap();
            // A configuration of the user's must not make another model of a row.
            let named = |row: &Row| row.run_file || row.model.contains_key("name");
            assert!(file.rows.iter().all(named), "{name}");
            let ours =
                file.rows.iter().filter(|row| row.model.get("name").and_then(|n| n.as_str()) == Some("fissfuse"));
            assert!(ours.into_iter().all(|row| row.model.contains_key("ablation")), "{name}");
        }
    }

    #[test]
    fn all_that_makes_no_sense_is_said_at_once() {
        let text = r#"
            title = "t"
            seeds = [1, 1]
            against = "C"
            grid = { learning_rate = [], "train.seed" = [1], "model.d" = [8, 8] }
            base.train.seed = 3
            rows = [{ name = "A" }, { name = "a" }, { name = "../" }, { name = "summary.json" },
                { name = "B", train.epochs = 2, grid = { "train.epochs" = [1, 2] } }]
            rerank = [{ name = "K=1", k = 1 }, { name = "a b", of = "F" }, { name = "b", of = "A" }]
            dataset = [{ name = "M", data = "d", features = "f" }, { name = "m", data = "d", features = "g" }]
        "#;
        let error = ExperimentFile::parse(Path::new("x.toml"), text).unwrap_err().to_string();
        for part in [
            "one twice",
            "train.seed has no effect",
            "has a value twice",
            "`summary.json` is that of a file",
            "both as a setting and in its grid",
            "`../` has neither",
            "`a`",
            "\"C\" is no row",
            "`learning_rate` is no",
            "has no values",
            "not to be chosen",
            "k = 1",
            "of = \"F\" is no row",
            "makes a row are called `b`",
            "two datasets are called `m`",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let unknown = ExperimentFile::parse(Path::new("x.toml"), "title = 't'\nseeds = [0]\nrow = []").unwrap_err();
        assert!(unknown.to_string().contains("unknown field `row`"), "{unknown}");
        let missing = ExperimentFile::open("mein").unwrap_err().to_string();
        assert!(missing.contains("there are main, ablation"), "{missing}");
    }
}
