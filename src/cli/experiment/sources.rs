//! The datasets of an experiment: one, or several by their names.

use std::path::{Path, PathBuf};

use anyhow::Context;
use fissfuse::data::{Batcher, Dataset, Skipped};
use fissfuse::experiment::{DatasetSource, ExperimentFile, wrong_datasets};
use fissfuse::files;

use super::super::common::{DataArgs, batcher};
use super::super::paths::Named;
use super::Args;

/// A dataset with the folder of its part of the experiment.
pub struct Source {
    /// Its name, if it is one of several.
    pub name: Option<String>,
    /// The folder of its trials and table.
    pub out: PathBuf,
    data: DataArgs,
    features: PathBuf,
    config: Option<PathBuf>,
}

/// The datasets that the flags or the file say, and whether they are several by their names.
pub fn sources(args: &Args, file: &ExperimentFile) -> anyhow::Result<(Vec<Source>, bool)> {
    let out = args.out.clone().unwrap_or_default();
    let read = |data: &Path| DataArgs { data: data.to_path_buf(), skip_bad: args.skip_bad };
    let given = match (&args.datasets[..], &file.dataset[..]) {
        ([], []) => {
            let (Some(data), Some(features)) = (&args.data, &args.features) else {
                anyhow::bail!("no dataset is given: add --data DIR and --features DIR, or --dataset NAME=DIR,FEATURES")
            };
            let (data, features, config) = (read(data), features.clone(), args.config.clone());
            return Ok((vec![Source { name: None, out, data, features, config }], false));
        }
        (given, []) | ([], given) => given,
        _ => anyhow::bail!(
            "the experiment's file says its datasets ([[dataset]]), and so does --dataset; give one of them"
        ),
    };
    anyhow::ensure!(args.data.is_none(), "the experiment's file says its datasets ([[dataset]]), and so does --data");
    anyhow::ensure!(
        args.beside.is_none(),
        "--beside is for one dataset; of several, one that is called WikiMEL or WikiDiverse has the paper's values beside it"
    );
    let wrong = wrong_datasets(given);
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    let source = |source: &DatasetSource| Source {
        name: Some(source.name.clone()),
        out: source.folder(&out),
        data: read(&source.data),
        features: source.features.clone(),
        config: source.config.clone().or_else(|| args.config.clone()),
    };
    Ok((given.iter().map(source).collect(), true))
}

impl Source {
    /// Its name; empty if it is the only one.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// What is read of it.
    pub fn reads(&self) -> [Named<'_>; 2] {
        match self.name {
            None => [("--data", &self.data.data), ("--features", &self.features)],
            Some(_) => [("a dataset's folder", &self.data.data), ("a dataset's feature store", &self.features)],
        }
    }

    /// Says in an error of which dataset it is, if that is one of several.
    pub fn told<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        match &self.name {
            None => result,
            Some(name) => result.with_context(|| format!("dataset `{name}`")),
        }
    }

    /// Opens it with its features.
    pub fn open(&self, skipped: &mut Skipped) -> anyhow::Result<(Dataset, Batcher)> {
        let mut open = || -> anyhow::Result<(Dataset, Batcher)> {
            let dataset = self.data.open(skipped)?;
            let batcher = batcher(&dataset, &self.features)?;
            Ok((dataset, batcher))
        };
        self.told(open())
    }

    /// The configuration that its rows start from.
    pub fn config(&self) -> anyhow::Result<Option<toml::Table>> {
        let read = |path: &Path| -> anyhow::Result<toml::Table> {
            let text = files::read_text_or_stream(path)?;
            toml::from_str(&text).with_context(|| format!("{}: is no configuration", path.display()))
        };
        self.config.as_deref().map(read).transpose()
    }

    /// Of run files that were given, those on this dataset, by their rows.
    pub fn runs<'r>(&self, given: &'r [(String, PathBuf)]) -> Vec<(String, &'r Path)> {
        let row = |name: &str| match &self.name {
            None => Some(name.to_string()),
            Some(dataset) => Some(name.strip_suffix(dataset.as_str())?.strip_suffix('@')?.to_string()),
        };
        given.iter().filter_map(|(name, path)| Some((row(name)?, path.as_path()))).collect()
    }
}
