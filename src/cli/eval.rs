//! `fissfuse eval`

use std::path::PathBuf;

use fissfuse::data::{Dataset, GoldMissing, Sample, Skipped, Split};
use fissfuse::device::describe;
use fissfuse::eval::{Evaluation, evaluate};
use fissfuse::report::{Provenance, evaluation_table};
use fissfuse::train::TrainedModel;
use serde_json::json;

use super::common::{DataArgs, DeviceArgs, batcher, list_skipped, progress, report_counts, write_json};
use super::paths::{self, Holds};

/// Rank a split's mentions with a trained model and report H@1, H@2, H@3, H@5, MR and MRR.
///
/// Writes metrics.json and run.jsonl (each mention's ranking and scores).
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub data: DataArgs,

    /// Feature store that `fissfuse encode` made.
    #[arg(long, value_name = "DIR")]
    pub features: PathBuf,

    /// Folder of a training run, or a model's file.
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,

    /// Mentions to rank.
    #[arg(long, default_value = "test")]
    pub split: Split,

    /// What becomes of mentions whose candidates lack the gold entity.
    #[arg(long, default_value = "drop")]
    pub gold_missing: GoldMissing,

    /// Draws the order of the candidates, which decides ties.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    #[command(flatten)]
    pub device: DeviceArgs,

    /// Where to write metrics.json and run.jsonl.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let reads = [("--data", args.data.data.as_path()), ("--features", &args.features)];
    paths::keep_apart(&reads, &[("--out", &args.out)])?;
    paths::no_other_kind("--out", &args.out, &[Holds::Run])?;
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let batcher = batcher(&dataset, &args.features)?;
    let gpu = args.device.open()?;
    let trained = TrainedModel::read(&args.model)?;
    trained.check(batcher.store().manifest(), &args.features)?;
    let mentions = dataset.mentions(args.split, &mut skipped)?;
    let (samples, counts) = batcher.samples(&mentions, args.seed, args.gold_missing)?;
    report_counts(&args.split.to_string(), &counts, args.gold_missing);
    list_skipped(&skipped);
    anyhow::ensure!(!samples.is_empty(), "no mention of {} is left to rank", args.split);
    let bar = progress("entities and mentions");
    let evaluation = evaluate(&trained.model.to(gpu.as_ref())?, &batcher, &samples, &bar)?;
    bar.finish_and_clear();
    let device = describe(gpu.as_ref());
    println!("{} mentions of {}, epoch {} of the model; {device}", samples.len(), args.split, trained.epoch);
    println!("{}", evaluation_table(&evaluation));
    let per_score: serde_json::Map<String, serde_json::Value> =
        evaluation.per_score.iter().map(|(kind, metrics)| (kind.label().into(), json!(metrics))).collect();
    let metrics = json!({
        "split": args.split.to_string(),
        "mean": evaluation.mean,
        "per_score": per_score,
        "counts": counts,
        "entities_without_image": batcher.entities_without_image(),
        "gold_missing": args.gold_missing,
        "model": trained.model.config(),
        "epoch": trained.epoch,
        "features": batcher.store().manifest(),
        "provenance": Provenance::new(device, dataset.checksum()?, args.seed),
    });
    write_json(&args.out.join("metrics.json"), &metrics)?;
    write_run(&args, &dataset, &samples, &evaluation)
}

/// One line per mention: its candidates best first with their scores, the gold entity and its rank.
fn write_run(args: &Args, dataset: &Dataset, samples: &[Sample], evaluation: &Evaluation) -> anyhow::Result<()> {
    let qid = |sample: &Sample, at: usize| &dataset.entities()[sample.candidates[at] as usize].qid;
    fissfuse::files::write_whole(&args.out.join("run.jsonl"), |out| {
        for (sample, ranked) in samples.iter().zip(&evaluation.ranked) {
            let n = sample.candidates.len();
            let by_score: serde_json::Map<String, serde_json::Value> = evaluation
                .per_score
                .iter()
                .enumerate()
                .map(|(k, (kind, _))| {
                    let scores: Vec<f32> = ranked.order.iter().map(|&at| ranked.scores[k * n + at]).collect();
                    (kind.label().to_string(), json!(scores))
                })
                .collect();
            let line = json!({
                "mention_id": sample.id,
                "candidates": ranked.order.iter().map(|&at| qid(sample, at)).collect::<Vec<_>>(),
                "scores": ranked.order.iter().map(|&at| ranked.similarity[at]).collect::<Vec<_>>(),
                "by_score": by_score,
                "gold": sample.gold.map(|at| qid(sample, at as usize)),
                "rank": ranked.rank,
            });
            writeln!(out, "{line}")?;
        }
        Ok(())
    })?;
    println!("wrote {} and {}", args.out.join("metrics.json").display(), args.out.join("run.jsonl").display());
    Ok(())
}
