//! `fissfuse eval --ranking`: metrics of a run file, whoever wrote it.

use std::path::Path;

use anyhow::Context;
use fissfuse::data::{Protocol, Skipped};
use fissfuse::eval::statistics::Resampling;
use fissfuse::eval::{Comparison, RunRanks};
use fissfuse::files;
use fissfuse::files::names::{METRICS, RUN};
use fissfuse::provenance::Provenance;
use fissfuse::report::{comparison_text, hits_line, metrics_table};
use serde_json::json;

use super::{Args, intervals};
use crate::cli::common::{list_skipped, write_json};
use crate::cli::paths;

/// How the interval of a difference is drawn.
const BOOTSTRAP: Resampling = Resampling { resamples: 10_000, seed: 0 };

/// Metrics of a run file.
pub fn judge(args: &Args, ranking: &Path) -> anyhow::Result<()> {
    let out: Vec<_> = args.out.iter().map(|out| ("--out", out.as_path())).collect();
    let mut reads = vec![("--data", args.data.data.as_path()), ("--ranking", ranking)];
    reads.extend(args.against.iter().map(|against| ("--against", against.as_path())));
    paths::keep_apart(&reads, &out)?;
    if let Some(of_a_model) = args.out.as_ref().map(|out| out.join(RUN)).filter(|run| run.exists()) {
        anyhow::bail!(
            "{}: --out holds the evaluation of a model, whose metrics.json would be written over; choose another folder",
            of_a_model.display()
        );
    }
    args.out.as_deref().map_or(Ok(()), files::expect_folder_at)?;
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let mentions = dataset.mentions(args.split, &mut skipped)?;
    let mut read = |path: &Path| RunRanks::read(path, &dataset, &mentions, args.data.tolerance(), &mut skipped);
    let ranks = read(ranking)?;
    let against = args.against.as_deref().map(|path| anyhow::Ok((path, read(path)?))).transpose()?;
    list_skipped(&skipped);
    let run = ranks.metrics();
    println!("{} mentions of {} in {}", run.metrics.mentions, args.split, ranking.display());
    println!("{}", metrics_table([("run", &run.metrics)]));
    println!("{}", hits_line(&run.metrics)?);
    for (count, what) in [
        (
            run.gold_missing,
            "rankings lack their gold entity: it counts as ranked behind all that they list, so that MR and MRR of short lists look better",
        ),
        (run.without_gold, "rankings left out: their mentions have no gold entity"),
        (run.errors, "lines left out: they hold an error"),
        (run.absent, "mentions of the split left out: they have no line"),
    ] {
        if count > 0 {
            println!("{count} {what}");
        }
    }
    let comparison = against.map(|(path, against)| compare(&ranks, path, &against)).transpose()?;
    let Some(out) = &args.out else { return Ok(()) };
    let metrics = json!({
        "split": args.split.to_string(),
        "ranking": ranking,
        "run": run,
        "wilson_95": intervals(&run.metrics)?,
        "against": args.against,
        "comparison": comparison,
        "protocol": Protocol::of(run.gold_missing),
        "provenance": Provenance::new("none".into(), dataset.checksum()?),
    });
    write_json(&out.join(METRICS), &metrics)?;
    println!("wrote {}", out.join(METRICS).display());
    Ok(())
}

/// Compares a run with another one and prints what comes of it.
fn compare(run: &RunRanks, path: &Path, against: &RunRanks) -> anyhow::Result<Comparison> {
    let comparison =
        Comparison::of(run, against, BOOTSTRAP).with_context(|| format!("--against {}", path.display()))?;
    println!("{} mentions that this run and {} rank", comparison.run.mentions, path.display());
    println!("{}", comparison_text(&comparison));
    for (count, which) in [(comparison.only_run, "this run"), (comparison.only_against, "the other")] {
        if count > 0 {
            println!("{count} mentions left out of the comparison: {which} alone ranks them");
        }
    }
    Ok(comparison)
}
