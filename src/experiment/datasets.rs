//! One table over several datasets, each of which has a summary of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::file::{folder_name, wrong_name};
use super::summary::{Spread, Summary, SummaryRow};
use super::text::{experiment_text, percent, seeds, spread};
use super::trial::Data;
use crate::data::Protocol;
use crate::error::{Error, Result};
use crate::printable::printable;
use crate::report::table;

/// A dataset of an experiment over several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSource {
    /// Its name in the table; the paper's values stand beside `WikiMEL` and `WikiDiverse`.
    pub name: String,
    /// Its folder.
    pub data: PathBuf,
    /// Its feature store.
    pub features: PathBuf,
    /// The configuration that its rows start from, in place of that of all datasets.
    #[serde(default)]
    pub config: Option<PathBuf>,
}

impl DatasetSource {
    /// Its folder below the experiment's.
    pub fn folder(&self, experiment: &Path) -> PathBuf {
        experiment.join(folder_name(&self.name))
    }
}

impl FromStr for DatasetSource {
    type Err = String;

    /// `NAME=DIR,FEATURES` or `NAME=DIR,FEATURES,CONFIG`.
    fn from_str(text: &str) -> Result<DatasetSource, String> {
        let (name, paths) = text.split_once('=').unwrap_or((text, ""));
        let paths: Vec<&str> = paths.split(',').collect();
        match (name, &paths[..]) {
            (name, [data, features, config @ ..])
                if config.len() <= 1 && !name.is_empty() && paths.iter().all(|path| !path.is_empty()) =>
            {
                let config = config.first().map(PathBuf::from);
                Ok(DatasetSource { name: name.into(), data: data.into(), features: features.into(), config })
            }
            _ => {
                Err("give NAME=DIR,FEATURES or NAME=DIR,FEATURES,CONFIG; paths with commas go into [[dataset]]".into())
            }
        }
    }
}

/// What makes no sense in a list of datasets.
pub fn wrong_datasets(datasets: &[DatasetSource]) -> Vec<String> {
    let (mut wrong, mut folders) = (Vec::new(), BTreeSet::new());
    for DatasetSource { name, .. } in datasets {
        wrong.extend(wrong_name(name));
        if !folders.insert(folder_name(name)) {
            wrong.push(format!("two datasets are called `{name}`, or nearly so"));
        }
    }
    wrong
}

/// Fails if datasets, by their names, are of different protocols: one table could not compare them.
pub fn expect_one_protocol(datasets: &[(&str, &Data)]) -> Result<()> {
    let Some(((first, data), others)) = datasets.split_first() else { return Ok(()) };
    let protocol = data.tested()?.1;
    for (name, other) in others {
        let (there, policies) = (other.tested()?.1, (data.gold_missing, other.gold_missing));
        if (there, policies.1) != (protocol, policies.0) {
            return Err(Error::invalid(format!(
                "`{first}` and `{name}` are of different protocols and cannot stand in one table: {protocol} (gold_missing {}) \
                 and {there} (gold_missing {}); give each a table of its own",
                policies.0, policies.1
            )));
        }
    }
    Ok(())
}

/// A table over several datasets.
#[derive(Debug, Serialize)]
pub struct DatasetsSummary<'s> {
    /// Title.
    pub title: &'s str,
    /// What the lists of all datasets mean.
    pub protocol: Protocol,
    /// Seeds.
    pub seeds: &'s [u64],
    /// The row that the others are compared with, within each dataset.
    pub against: Option<&'s str>,
    /// In the order in which they were given.
    pub datasets: Vec<OneDataset<'s>>,
    /// Of each row that has metrics on all datasets, their means.
    pub average: Vec<Average<'s>>,
}

/// What a table says of one dataset.
#[derive(Debug, Serialize)]
pub struct OneDataset<'s> {
    /// Its name.
    pub name: &'s str,
    /// All that a table of it alone says.
    pub summary: &'s Summary,
}

/// A row's metrics, averaged over datasets.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Average<'s> {
    /// The row.
    pub name: &'s str,
    /// Share of mentions whose gold entity ranks first.
    #[serde(rename = "H@1")]
    pub hits1: f64,
    /// Mean reciprocal rank.
    #[serde(rename = "MRR")]
    pub reciprocal: f64,
}

impl<'s> DatasetsSummary<'s> {
    /// Of the summaries of all datasets, by their names; they have the same rows. `None` without one.
    pub fn new(summaries: &[(&'s str, &'s Summary)]) -> Option<DatasetsSummary<'s>> {
        let (_, first) = summaries.first()?;
        let average = first.rows.iter().enumerate().filter_map(|(at, row)| {
            let metrics = summaries.iter().map(|(_, summary)| summary.rows[at].metrics);
            let metrics: Vec<Spread> = metrics.collect::<Option<_>>()?;
            let mean = |of: fn(&Spread) -> f64| metrics.iter().map(of).sum::<f64>() / metrics.len() as f64;
            Some(Average { name: &row.name, hits1: mean(|m| m.hits1.mean), reciprocal: mean(|m| m.reciprocal.mean) })
        });
        Some(DatasetsSummary {
            title: &first.title,
            protocol: first.protocol,
            seeds: &first.seeds,
            against: first.against.as_deref(),
            average: average.collect(),
            datasets: summaries.iter().map(|&(name, summary)| OneDataset { name, summary }).collect(),
        })
    }

    /// The table, a group of columns for each dataset, and below it all that is said of each.
    pub fn text(&self) -> String {
        let mut header = vec![String::new()];
        for OneDataset { name, .. } in &self.datasets {
            header.push(format!("{}\nH@1 %", name.replace(['\n', '\t'], " ")));
            header.extend(["\nH@2 %", "\nH@3 %", "\nMR", "\nMRR %"].map(String::from));
        }
        header.extend(["average\nH@1 %", "\nMRR %"].map(String::from));
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let rows = self.datasets.first().map(|first| &first.summary.rows[..]).unwrap_or_default();
        let cells = |(at, row): (usize, &SummaryRow)| {
            let mut cells = vec![row.name.clone()];
            for OneDataset { summary, .. } in &self.datasets {
                let of = |m: &Spread| {
                    let [h1, h2, h3, mrr] = [&m.hits1, &m.hits2, &m.hits3, &m.reciprocal].map(percent);
                    [h1, h2, h3, spread(&m.mean_rank, 1.0, 3), mrr]
                };
                cells.extend(summary.rows[at].metrics.as_ref().map_or_else(|| ["-"; 5].map(String::from), of));
            }
            let average = self.average.iter().find(|average| average.name == row.name);
            let percent = |x: f64| format!("{:.2}", 100.0 * x);
            cells.extend(average.map_or_else(|| ["-"; 2].map(String::from), |a| [a.hits1, a.reciprocal].map(percent)));
            cells
        };
        let table = table(&header, rows.iter().enumerate().map(cells));
        let mut text = format!("{}\n{}; {}\n{table}\n", self.title, self.protocol, seeds(self.seeds));
        for OneDataset { name, summary } in &self.datasets {
            text += &format!("\n{name}: {}", experiment_text(summary));
        }
        printable(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_has_a_name_a_folder_and_features() {
        let of = |text: &str| text.parse::<DatasetSource>();
        let plain = DatasetSource { name: "A".into(), data: "d".into(), features: "f".into(), config: None };
        assert_eq!(of("A=d,f"), Ok(plain.clone()));
        assert_eq!(of("A=d,f,c.toml"), Ok(DatasetSource { config: Some("c.toml".into()), ..plain }));
        for bad in ["A", "A=d", "=d,f", "A=d,", "A=d,f,c,e", "A=,f"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_datasets_are_names_of_folders() {
        let datasets = ["A", "a", "../", "summary.json"].map(|name| format!("{name}=d,f").parse().unwrap());
        let wrong = wrong_datasets(&datasets).join("; ");
        for part in ["two datasets are called `a`", "`../` has neither", "`summary.json` is that of a file"] {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
    }
}
