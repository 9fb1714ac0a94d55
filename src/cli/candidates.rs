//! `fissfuse candidates`

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use fissfuse::candidates::{ListReport, ListSettings, Made, make_lists, write_lists};
use fissfuse::data::{Protocol, Skipped};
use fissfuse::files::{self, FolderLock};
use fissfuse::report::table;
use fissfuse::shard::Shard;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::common::{DataArgs, at_least_one, list_skipped, progress};
use super::paths;
use super::shard::{self, ShardArgs};

/// Give the mentions of a dataset their candidates: entities whose names or descriptions agree with them.
///
/// Rewrites train.jsonl, valid.jsonl and test.jsonl, all or none, and reports how many gold entities were found.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,

    /// Candidates of a list.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one())]
    top: usize,

    /// What becomes of lists that lack their gold entity.
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,

    /// Replace the lists of mentions that have one already; the files as they were are kept beside them (.bak).
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    shard: ShardArgs,

    /// With --shard: folder of parts, which `fissfuse merge` joins. The dataset stays as it is until then.
    #[arg(long, value_name = "DIR", requires = "shard")]
    out: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    if let Some(shard) = args.shard.part()? {
        let out = args.out.as_ref().context("--shard writes a part of the lists into a folder: add --out DIR")?;
        return make_part(&args, shard, out);
    }
    let mut skipped = Skipped::default();
    let _lock = FolderLock::take(&args.data.data)?;
    let dataset = args.data.open(&mut skipped)?;
    let (start, bar) = (Instant::now(), progress("mentions"));
    let reports = write_lists(&dataset, args.settings(), &mut skipped, &bar)?;
    bar.finish_and_clear();
    list_skipped(&skipped);
    print_reports(&reports);
    let mentions: usize = reports.iter().map(|report| report.mentions).sum();
    let (entities, seconds) = (dataset.entities().len(), start.elapsed().as_secs_f64());
    println!("{mentions} mentions against {entities} entities in {seconds:.1} s");
    Ok(())
}

/// Says what the lists of each split find, and where its file lies as it was.
pub fn print_reports(reports: &[ListReport]) {
    let row = |report: &ListReport| {
        let recall = report.recall.at.iter().map(|at| format!("{:.2}", 100.0 * at.recall));
        let counts = [report.recall.split.to_string(), report.mentions.to_string()].into_iter();
        counts.chain(recall).chain([report.injected.to_string()]).collect()
    };
    let header = ["as retrieved", "mentions", "R@1 %", "R@10 %", "R@100 %", "gold put in"];
    println!("{}", table(&header, reports.iter().map(row)));
    for kept in reports.iter().filter_map(|report| report.kept.as_ref()) {
        println!("the file as it was: {}", kept.display());
    }
}

/// What a part gives to be joined.
#[derive(Serialize, Deserialize)]
pub struct Piece {
    /// Of each split, but for its lines, which are in a file of its name.
    pub made: Vec<Made>,
    /// Whether lists that were there are replaced.
    pub replace: bool,
}

/// Makes the lists of a part's share of the mentions.
fn make_part(args: &Args, shard: Shard, out: &Path) -> anyhow::Result<()> {
    paths::keep_apart(&[("--data", &args.data.data)], &[("--out", out)])?;
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let settings = [
        ("top", json!(args.top)),
        ("protocol", json!(args.protocol)),
        ("replace", json!(args.replace)),
        ("skip_bad", json!(args.data.skip_bad)),
    ];
    // Names and words are compared by counting: every processor gives the same.
    let mut part = shard::begin(out, "candidates", shard, shard::run_of(&dataset, "any".into(), &settings)?)?;
    let (start, bar) = (Instant::now(), progress("mentions"));
    let share = |lines| part.share("lines", lines, 1);
    let mut made = make_lists(&dataset, args.settings(), share, &mut skipped, &bar)?;
    bar.finish_and_clear();
    list_skipped(&skipped);
    let mentions: usize = made.iter().map(|made| made.mentions).sum();
    for made in &mut made {
        let text = std::mem::take(&mut made.text);
        files::write_whole(&part.folder().join(made.split.file()), |out| out.write_all(text.as_bytes()))?;
    }
    let (entities, seconds) = (dataset.entities().len(), start.elapsed().as_secs_f64());
    println!("{mentions} mentions against {entities} entities in {seconds:.1} s");
    let names: Vec<&str> = made.iter().map(|made| made.split.file()).collect();
    shard::finish(part, &names, json!(Piece { made: made.clone(), replace: args.replace }))
}

impl Args {
    fn settings(&self) -> ListSettings {
        ListSettings { top: self.top, protocol: self.protocol, replace: self.replace, tolerance: self.data.tolerance() }
    }
}
