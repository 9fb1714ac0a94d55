//! `--shard`: a part of a command's work, such as a task of an array job does.

use std::path::{Path, PathBuf};

use fissfuse::data::{Dataset, store_fingerprint};
use fissfuse::encoder::Fingerprint;
use fissfuse::files;
use fissfuse::files::names::BEST;
use fissfuse::provenance::Provenance;
use fissfuse::shard::{Part, Run, Shard, ShardChoice, from_environment};
use serde_json::{Value, json};

use super::paths;

/// Flags of subcommands that can do a part of their work.
#[derive(clap::Args, Clone)]
pub struct ShardArgs {
    /// Do part i of n alone, from 1/n to n/n, into a folder part-i-of-n of --out; `fissfuse merge` joins all parts. `auto` takes
    /// i and n from the array job of Slurm or SGE that this is a task of. Without --shard, all is done, in an array job too.
    #[arg(long, value_name = "I/N|auto")]
    pub shard: Option<ShardChoice>,
}

impl ShardArgs {
    /// Which part is to be done, if not all.
    pub fn part(&self) -> anyhow::Result<Option<Shard>> {
        self.shard.map(chosen).transpose()
    }
}

/// The part that a choice comes to; says who chose it if the environment did.
pub fn chosen(choice: ShardChoice) -> anyhow::Result<Shard> {
    match choice {
        ShardChoice::Given(shard) => Ok(shard),
        ShardChoice::Auto => {
            let (shard, by) = from_environment(|name| std::env::var(name).ok())?;
            eprintln!("{shard}, since {by}");
            Ok(shard)
        }
    }
}

/// Begins a part of a command's work within the folder of parts.
pub fn begin(out: &Path, command: &str, shard: Shard, run: Run) -> anyhow::Result<Part> {
    paths::no_other_kind("--out", out, &[])?;
    files::expect_folder_at(out)?;
    Ok(Part::begin(out, command, shard, run)?)
}

/// Finishes a part, and says what to do when all are.
pub fn finish(part: Part, files: &[&str], result: Value) -> anyhow::Result<()> {
    let files: Vec<String> = files.iter().map(|name| name.to_string()).collect();
    let folder = part.finish(&files, result)?;
    println!("wrote {}; `fissfuse merge` joins it with the others", folder.display());
    Ok(())
}

/// What a run depends on: the program, what computes, and these by name.
pub fn run_of(dataset: &Dataset, arithmetic: String, others: &[(&str, Value)]) -> anyhow::Result<Run> {
    let Provenance { version, commit, device, dataset } = Provenance::new(arithmetic, dataset.checksum()?);
    let mut run = Run::new();
    for (name, value) in [("version", version), ("commit", commit), ("arithmetic", device), ("dataset", dataset)] {
        run.insert(name.into(), json!(value));
    }
    run.extend(others.iter().map(|(name, value)| (name.to_string(), value.clone())));
    Ok(run)
}

/// Checksum of a feature store, of those in its shards.
pub fn features(folder: &Path) -> anyhow::Result<Value> {
    Ok(json!(store_fingerprint(folder)?))
}

/// Checksum of a model's file; `path` is the file or the folder of its run.
pub fn model(path: &Path) -> anyhow::Result<Value> {
    let file: PathBuf = if path.is_dir() { path.join(BEST) } else { path.to_path_buf() };
    Ok(json!(Fingerprint::of_files(&[file])?.as_str()))
}
