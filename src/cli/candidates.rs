//! `fissfuse candidates`

use std::time::Instant;

use fissfuse::candidates::{ListReport, ListSettings, write_lists};
use fissfuse::data::{Protocol, Skipped};
use fissfuse::files::FolderLock;
use fissfuse::report::table;

use super::common::{DataArgs, at_least_one, list_skipped, progress};

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
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut skipped = Skipped::default();
    let _lock = FolderLock::take(&args.data.data)?;
    let dataset = args.data.open(&mut skipped)?;
    let (start, bar) = (Instant::now(), progress("mentions"));
    let settings = ListSettings {
        top: args.top,
        protocol: args.protocol,
        replace: args.replace,
        tolerance: args.data.tolerance(),
    };
    let reports = write_lists(&dataset, settings, &mut skipped, &bar)?;
    bar.finish_and_clear();
    list_skipped(&skipped);
    let row = |report: &ListReport| {
        let recall = report.recall.at.iter().map(|at| format!("{:.2}", 100.0 * at.recall));
        let counts = [report.recall.split.to_string(), report.mentions.to_string()].into_iter();
        counts.chain(recall).chain([report.injected.to_string()]).collect()
    };
    let header = ["as retrieved", "mentions", "recall at 1 %", "at 10 %", "at 100 %", "gold put in"];
    println!("{}", table(&header, reports.iter().map(row)));
    let mentions: usize = reports.iter().map(|report| report.mentions).sum();
    let (entities, seconds) = (dataset.entities().len(), start.elapsed().as_secs_f64());
    for kept in reports.iter().filter_map(|report| report.kept.as_ref()) {
        println!("the file as it was: {}", kept.display());
    }
    println!("{mentions} mentions against {entities} entities in {seconds:.1} s");
    Ok(())
}
