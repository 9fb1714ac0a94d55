//! `fissfuse report`

use std::path::PathBuf;

use fissfuse::files;
use fissfuse::printable::printable;
use fissfuse::report::page;

use super::paths;

/// Make one page of HTML from runs: curves, tables, charts and examples. It opens in any browser, without a network.
///
/// A section is there if a run has something for it. Results of different datasets, splits or protocols stand in
/// tables of their own.
#[derive(clap::Args)]
pub struct Args {
    /// Folders that train, eval, rerank or experiment wrote, or files: train.jsonl, metrics.json, run.jsonl,
    /// summary.json, the --report of rerank, and JSON of fissfuse-bench.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,

    /// Folder of the dataset, for examples with images.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Heading of the page.
    #[arg(long, default_value = "Report")]
    title: String,

    /// Page to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut reads: Vec<paths::Named> = args.runs.iter().map(|run| ("RUN", run.as_path())).collect();
    reads.extend(args.data.iter().map(|data| ("--data", data.as_path())));
    paths::keep_apart(&reads, &[("--out", &args.out)])?;
    files::expect_file_at(&args.out)?;
    let page = page(&args.title, &args.runs, args.data.as_deref())?;
    // Of a folder, any file may be measurements or a report.
    let reads: Vec<paths::Named> = page.read.iter().map(|file| ("RUN", file.as_path())).collect();
    paths::keep_apart(&reads, &[("--out", &args.out)])?;
    for (path, why) in &page.unshown {
        eprintln!("warning: {}: {why}", printable(&path.display().to_string()));
    }
    files::write_whole(&args.out, |out| out.write_all(page.html.as_bytes()))?;
    println!("wrote {}: {}", args.out.display(), page.sections.join(", "));
    Ok(())
}
