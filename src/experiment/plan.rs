//! From an experiment's file to what is trained.

use std::path::PathBuf;

use super::file::{ExperimentFile, Grid, Row, folder_name};
use super::trial::Data;
use crate::data::{GoldMissing, Manifest};
use crate::error::{Error, Result};
use crate::model::Architecture;
use crate::train::{ModelSettings, RunConfig};

/// One training and evaluation.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its folder below the experiment's.
    pub folder: PathBuf,
    /// Tells it from all others of the plan, in every process.
    pub number: usize,
    /// Number of its point of the grid.
    pub point: usize,
    /// Its seed.
    pub seed: u64,
    /// What is trained.
    pub config: RunConfig,
}

/// A row with what may be trained for it.
#[derive(Clone, Debug)]
pub struct PlannedRow {
    /// The row as the file has it.
    pub row: Row,
    /// Its settings by the point of the grid; empty for a row that is not trained.
    pub points: Vec<Point>,
    /// Why it is left out, if it is.
    pub hole: Option<String>,
}

/// A point of a grid.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its values, such as `learning_rate=0.001`; empty if there is nothing to choose.
    pub label: String,
    /// The configuration, but for the seed.
    pub config: RunConfig,
}

/// All rows of an experiment.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One for a row.
    pub rows: Vec<PlannedRow>,
    /// Seeds; the first one chooses.
    pub seeds: Vec<u64>,
}

impl Plan {
    /// Makes all configurations, on top of `config`, and checks them against the features. Names all that make no sense.
    pub fn new(file: &ExperimentFile, config: Option<&toml::Table>, manifest: &Manifest) -> Result<Plan> {
        let (mut rows, mut wrong) = (Vec::new(), Vec::new());
        for row in &file.rows {
            let empty = PlannedRow { row: row.clone(), points: Vec::new(), hole: None };
            if row.run_file {
                rows.push(empty);
                continue;
            }
            let mut planned = empty;
            for values in points(row.grid.as_ref().unwrap_or(&file.grid)) {
                match configured(file, config, row, &values) {
                    Ok(config) => planned.points.push(Point { label: label(&values), config }),
                    Err(reason) => wrong.push(format!("row `{}`: {reason}", row.name)),
                }
            }
            for point in &planned.points {
                let (reads, checked) = (lacks(&point.config, manifest), check(&point.config, manifest));
                match (reads, checked) {
                    (Some(reason), _) => planned.hole = Some(reason),
                    (None, Err(reason)) => wrong.push(format!("row `{}`: {reason}", row.name)),
                    (None, Ok(())) => {}
                }
            }
            rows.push(planned);
        }
        wrong.dedup();
        if !wrong.is_empty() {
            return Err(Error::invalid(wrong.join("\n")));
        }
        Ok(Plan { rows, seeds: file.seeds.clone() })
    }

    /// What becomes of mentions whose lists lack their gold entity. Fails if rows differ in it: they could not be compared.
    pub fn gold_missing(&self) -> Result<GoldMissing> {
        let points = self.rows.iter().flat_map(|planned| &planned.points);
        let mut policies = points.map(|point| point.config.train.gold_missing);
        let first = policies.next().unwrap_or_default();
        match policies.find(|policy| *policy != first) {
            None => Ok(first),
            Some(other) => Err(Error::invalid(format!(
                "settings with gold_missing {first} and {other} are of different protocols and cannot be compared"
            ))),
        }
    }

    /// Fails if a row is to choose from its grid by validation mentions that are not there.
    pub fn expect_choices(&self, data: &Data) -> Result<()> {
        let chooses = |row: &usize| !self.choosing(*row).is_empty();
        match (0..self.rows.len()).find(chooses).filter(|_| data.valid.is_empty()) {
            None => Ok(()),
            Some(row) => Err(Error::invalid(format!(
                "row `{}` chooses from a grid by the validation MRR, and the dataset has no valid.jsonl; give one value of each \
                 setting, or split the dataset",
                self.rows[row].row.name
            ))),
        }
    }

    /// A row's trial at a point of its grid.
    pub fn trial(&self, row: usize, point: usize, seed: u64) -> Trial {
        let PlannedRow { row: named, points, .. } = &self.rows[row];
        let mut config = points[point].config.clone();
        config.train.seed = seed;
        let folder = PathBuf::from(folder_name(&named.name));
        let folder = match points[point].label.as_str() {
            "" => folder,
            label => folder.join(folder_name(label)),
        };
        let before = self.rows[..row].iter().map(|planned| planned.points.len() + self.seeds.len()).sum::<usize>();
        let number = match self.seeds.iter().position(|known| *known == seed) {
            Some(later @ 1..) => before + points.len() + later,
            _ => before + point,
        };
        Trial { folder: folder.join(format!("seed-{seed}")), number, point, seed, config }
    }

    /// Trials that choose a row's point: with the first seed; none where there is nothing to choose.
    pub fn choosing(&self, row: usize) -> Vec<Trial> {
        let PlannedRow { points, hole, .. } = &self.rows[row];
        let choose = hole.is_none() && points.len() > 1;
        (0..if choose { points.len() } else { 0 }).map(|point| self.trial(row, point, self.seeds[0])).collect()
    }

    /// Trials of a row at the point that was chosen.
    pub fn chosen(&self, row: usize, point: usize) -> Vec<Trial> {
        let PlannedRow { points, hole, .. } = &self.rows[row];
        match hole.is_some() || points.is_empty() {
            true => Vec::new(),
            false => self.seeds.iter().map(|&seed| self.trial(row, point, seed)).collect(),
        }
    }
}

/// Settings by their names, of one point of a grid.
type Values = Vec<(String, toml::Value)>;

/// All points of a grid: one without values if it is empty.
fn points(grid: &Grid) -> Vec<Values> {
    grid.iter().fold(vec![Vec::new()], |points, (key, values)| {
        let with = |point: &Values, value: &toml::Value| [&point[..], &[(key.clone(), value.clone())]].concat();
        points.iter().flat_map(|point| values.iter().map(move |value| with(point, value))).collect()
    })
}

fn label(values: &Values) -> String {
    let short = |key: &str| key.rsplit('.').next().unwrap_or(key).to_string();
    let text = |value: &toml::Value| value.to_string().trim_matches('"').to_string();
    values.iter().map(|(key, value)| format!("{}={}", short(key), text(value))).collect::<Vec<_>>().join(",")
}

/// What a row's model is configured as. Settings of all rows that it does not heed are left out; its own must be heeded.
fn configured(
    file: &ExperimentFile,
    config: Option<&toml::Table>,
    row: &Row,
    values: &Values,
) -> Result<RunConfig, String> {
    let mut table = config.cloned().unwrap_or_default();
    if table.contains_key("encoder") {
        return Err(
            "[encoder] has no effect, since experiments train on stored features: leave it out; `fissfuse train \
                    --train-encoder` trains an encoder along"
                .into(),
        );
    }
    merge(&mut table, "model", &file.base.model)?;
    expect_known(section(&table, "model"))?;
    merge(&mut table, "train", &file.base.train)?;
    let name = row.model.get("name").or_else(|| section(&table, "model").and_then(|model| model.get("name")));
    let architecture: Architecture = match name {
        None => Architecture::default(),
        Some(name) => name.as_str().ok_or("model.name is no text")?.parse()?,
    };
    if let Some(toml::Value::Table(model)) = table.get_mut("model") {
        let heeded = |key: &str| ["name", "widths"].contains(&key) || architecture.settings().contains(&key);
        model.retain(|key, _| heeded(key));
    }
    merge(&mut table, "model", &row.model)?;
    merge(&mut table, "train", &row.train)?;
    for (key, value) in values {
        let (section, key) = key.split_once('.').ok_or("a grid's key has no table")?;
        merge(&mut table, section, &toml::Table::from_iter([(key.to_string(), value.clone())]))?;
    }
    table.try_into().map_err(|e: toml::de::Error| e.message().to_string())
}

fn section<'t>(table: &'t toml::Table, name: &str) -> Option<&'t toml::Table> {
    table.get(name).and_then(toml::Value::as_table)
}

/// Fails at a key of `[model]` that no model has: what one model does not heed is left out, but what none knows is a mistake.
fn expect_known(model: Option<&toml::Table>) -> Result<(), String> {
    let default = toml::Table::try_from(ModelSettings::default()).map_err(|e| e.to_string())?;
    let known = |key: &&String| default.contains_key(*key) || *key == "widths";
    match model.into_iter().flat_map(toml::Table::keys).find(|key| !known(key)) {
        None => Ok(()),
        Some(key) => Err(format!(
            "[model] has no setting `{key}`; it has {}, widths",
            default.keys().cloned().collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Sets values of a table within a table.
fn merge(table: &mut toml::Table, name: &str, values: &toml::Table) -> Result<(), String> {
    let section = table.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let section = section.as_table_mut().ok_or_else(|| format!("[{name}] is no table"))?;
    section.extend(values.iter().map(|(key, value)| (key.clone(), value.clone())));
    Ok(())
}

/// What a model reads and the features lack.
fn lacks(config: &RunConfig, manifest: &Manifest) -> Option<String> {
    let reads = config.model.with_widths(manifest.widths).reads();
    let there = [(reads.text, manifest.reads_texts(), "texts"), (reads.image, manifest.reads_images(), "images")];
    let missing = there.iter().find(|(read, there, _)| *read && !there);
    missing.map(|(_, _, what)| format!("it reads {what}, and the features are without"))
}

fn check(config: &RunConfig, manifest: &Manifest) -> Result<()> {
    config.train.check()?;
    config.model.for_features(manifest).map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn grid(text: &str) -> Grid {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_grid_has_all_combinations() {
        let points = points(&grid("\"model.d\" = [8, 16]\n\"train.learning_rate\" = [0.1, 0.2, 0.3]"));
        let labels: Vec<String> = points.iter().map(label).collect();
        assert_eq!(labels.len(), 6);
        assert_eq!(labels[4], "d=16,learning_rate=0.2");
        assert_eq!(super::points(&Grid::new()), [Values::new()]);
    }

    #[test]
    fn a_rows_settings_stand_above_the_experiments_and_those_above_the_users() {
        let text = "title = ''\nseeds = [3]\nbase.model.d = 20\nbase.train.epochs = 4\n\
                    rows = [{ name = 'A', train.epochs = 5, model.ablation = 'a' }]";
        let file = ExperimentFile::parse(Path::new("x.toml"), text).unwrap();
        let user: toml::Table = toml::from_str("[model]\nd = 30\nheads = 2\n[train]\nbatch_size = 7").unwrap();
        let encoder: toml::Table = toml::from_str("[encoder]\nlearning_rate = 1e-4").unwrap();
        let refused = configured(&file, Some(&encoder), &file.rows[0], &Values::new()).unwrap_err();
        assert!(refused.contains("[encoder] has no effect"), "{refused}");
        let config = configured(&file, Some(&user), &file.rows[0], &Values::new()).unwrap();
        let (model, train) = (config.model, config.train);
        assert_eq!((model.d, model.heads, train.epochs, train.batch_size), (20, 2, 5, 7));
        assert_eq!(model.ablation, crate::model::Ablation::A);
    }

    #[test]
    fn an_unknown_setting_or_model_is_named() {
        let row = |text: &str| {
            let text = format!("title = ''\nseeds = [0]\nrows = [{{ name = 'A', {text} }}]");
            let file = ExperimentFile::parse(Path::new("x.toml"), &text).unwrap();
            configured(&file, None, &file.rows[0], &Values::new()).unwrap_err()
        };
        assert!(row("train.learning_rat = 1.0").contains("learning_rat"));
        assert!(row("model.name = 'mimik'").contains("there is no model `mimik`; there are bert, "));
    }
}
