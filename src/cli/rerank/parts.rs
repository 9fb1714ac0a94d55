//! A part of a re-ranking.

use fissfuse::data::Dataset;
use fissfuse::kar::{Fate, Header, Report, Settings};
use fissfuse::provenance::Provenance;
use fissfuse::shard::Run;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Args;
use crate::cli::shard;

/// The answers that a part's new rankings are made of, in its folder.
pub const JOURNAL: &str = "journal.jsonl";

/// What a part gives to be joined.
#[derive(Serialize, Deserialize)]
pub struct Piece {
    /// Of its mentions alone.
    pub report: Report,
    /// What became of each of them.
    pub fates: Vec<Fate>,
    /// Mentions of the dataset's split.
    pub split: usize,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// What parts depend on.
pub fn run_of(
    args: &Args,
    dataset: &Dataset,
    settings: &Settings,
    header: &Header,
    arithmetic: String,
) -> anyhow::Result<Run> {
    let fuse = args.fuse.is_some().then(|| (args.fuse_split.to_string(), args.fuse_mentions));
    let named = [
        ("model", json!(header.model)),
        ("template", json!(header.template)),
        ("ranking", json!(header.ranking)),
        ("split", json!(args.split.to_string())),
        ("fuse", json!(fuse)),
    ];
    let mut run = shard::run_of(dataset, arithmetic, &named)?;
    if let serde_json::Value::Object(settings) = json!(settings) {
        run.extend(settings);
    }
    Ok(run)
}
