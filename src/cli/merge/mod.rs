//! `fissfuse merge`

mod joined;

use std::path::{Path, PathBuf};

use fissfuse::shard::Parts;

use super::paths;

/// Join the parts of a command that was run with --shard: what it writes is what the command writes without.
///
/// All parts must be there, once, finished, of one run and as they were written; else it says which are not, and writes
/// nothing. Parts of `encode` give a feature store, those of `link` a file of answers, of `eval` metrics.json and run.jsonl, of
/// `rerank` a run file and a report; those of `candidates` the mentions' files of the dataset that --out names.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of parts, or parts.
    #[arg(required = true, value_name = "PARTS")]
    parts: Vec<PathBuf>,

    /// Where to write: what --out is without --shard; of `link`, a file; of `candidates`, the dataset.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,

    /// Report of a re-ranking to write, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let named = args.parts.iter().map(|path| ("PARTS", path.as_path()));
    let writes: Vec<paths::Named> = [("--out", args.out.as_path())]
        .into_iter()
        .chain(args.report.as_deref().map(|path| ("--report", path)))
        .collect();
    paths::keep_apart(&named.collect::<Vec<_>>(), &writes)?;
    let parts = Parts::open(&args.parts)?;
    for (name, path) in &writes {
        parts.keep_apart(name, path)?;
    }
    let command = parts.first().record.command.as_str();
    anyhow::ensure!(
        args.report.is_none() || command == "rerank",
        "--report is of a re-ranking, and these are parts of `{command}`; leave it out"
    );
    let (parts, out): (&Parts, &Path) = (&parts, &args.out);
    match command {
        "encode" => joined::encode(parts, out),
        "link" => joined::link(parts, out),
        "eval" => joined::eval(parts, out),
        "rerank" => joined::rerank(parts, out, args.report.as_deref()),
        "candidates" => joined::candidates(parts, out),
        other => anyhow::bail!("these are parts of `{other}`, which this version does not join"),
    }
}
