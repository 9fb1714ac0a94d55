//! Whose an experiment's folder is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::trial::Data;
use crate::data::Manifest;
use crate::error::{Error, Result};
use crate::files;

/// The file that says it.
const FILE: &str = "experiment.json";

/// What the folder of an experiment on one dataset is of.
#[derive(Serialize, Deserialize)]
struct Identity {
    version: String,
    dataset: String,
    features: Manifest,
    gold_missing: crate::data::GoldMissing,
}

/// What the folder of an experiment on several datasets says of itself; those of the datasets within say the rest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    several_datasets: bool,
}

/// Takes the folder for this dataset, protocol and version, or finds that it is.
pub fn claim(out: &Path, data: &Data) -> Result<()> {
    let path = out.join(FILE);
    let identity = Identity {
        version: env!("CARGO_PKG_VERSION").into(),
        dataset: data.checksum.clone(),
        features: data.batcher.store().manifest().clone(),
        gold_missing: data.gold_missing,
    };
    if !path.try_exists().map_err(Error::io(&path, "look for"))? {
        return files::write_whole(&path, |out| writeln!(out, "{}", serde_json::to_string_pretty(&identity)?));
    }
    let text = files::read_text_or_stream(&path)?;
    if serde_json::from_str::<Several>(&text).is_ok() {
        let reason = "holds an experiment over several datasets, each in a folder of its own; choose another --out";
        return Err(Error::file(out, reason));
    }
    let there: Identity =
        serde_json::from_str(&text).map_err(|e| Error::file(&path, format!("is no experiment's: {e}")))?;
    let refuse = |what: String| Err(Error::file(out, format!("holds an experiment {what}; choose another --out")));
    if there.version != identity.version {
        return refuse(format!("of version {} of this program, which is {}", there.version, identity.version));
    }
    if there.dataset != identity.dataset {
        return refuse("on another dataset, or on this one before its files changed".into());
    }
    if let Some(what) = there.features.difference(&identity.features, ["there", "in the store that is given"]) {
        return refuse(format!("on other features: {what}"));
    }
    if there.gold_missing != identity.gold_missing {
        let (there, here) = (there.gold_missing, identity.gold_missing);
        return refuse(format!("of another protocol: gold_missing was {there} and is now {here}"));
    }
    Ok(())
}

/// Takes the folder for an experiment on several datasets, or finds that it is one. Their own folders are taken by [`claim`].
pub fn claim_for_several(out: &Path) -> Result<()> {
    let path = out.join(FILE);
    if !path.try_exists().map_err(Error::io(&path, "look for"))? {
        let several = Several { several_datasets: true };
        return files::write_whole(&path, |out| writeln!(out, "{}", serde_json::to_string_pretty(&several)?));
    }
    match serde_json::from_str::<Several>(&files::read_text_or_stream(&path)?) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::file(out, "holds an experiment on one dataset and not several; choose another --out")),
    }
}
