//! `fissfuse eval`

mod ranking;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::CommandFactory;
use clap::error::ErrorKind;
use fissfuse::data::{Batcher, Counts, Dataset, GoldMissing, Mention, Protocol, Sample, Skipped, Split};
use fissfuse::device::{Gpu, arithmetic_of, describe};
use fissfuse::eval::{
    Baselines, Evaluation, FirstStage, GoldRanks, Metrics, Ranked, WHOLE_KB_BATCH, WholeKb, WholeKbEvaluation, chance,
    computed_together, evaluate, evaluate_whole, metrics_of, write_run,
};
use fissfuse::files;
use fissfuse::files::names::{METRICS, RUN};
use fissfuse::model::Model;
use fissfuse::provenance::Provenance;
use fissfuse::report::{hits_line, metrics_table, recall_line};
use fissfuse::shard::{Part, Run};
use fissfuse::train::TrainedModel;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::common::{
    DataArgs, DeviceArgs, FeatureMemoryArgs, at_least_one, batcher, list_skipped, progress, report_counts,
};
use super::paths::{self, Holds};
use super::shard::{self, ShardArgs};
use super::whole::WholeKbArgs;

/// Rank a split's mentions with a trained model and report H@1, H@2, H@3, H@5, MR and MRR.
///
/// Writes metrics.json and run.jsonl (each mention's ranking and scores). With --ranking, it needs no model: the same
/// metrics of a run file that any method wrote.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub data: DataArgs,

    /// Feature store that `fissfuse encode` made.
    #[arg(long, value_name = "DIR", required_unless_present = "ranking")]
    pub features: Option<PathBuf>,

    /// Folder of a training run, or a model's file.
    #[arg(long, value_name = "PATH", required_unless_present = "ranking")]
    pub model: Option<PathBuf>,

    /// Run file to judge instead of a model: of `eval` or `rerank`, or what `link` answered.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["features", "model", "gold_missing", "seed", "device", "arithmetic", "feature_memory", "protocol", "top", "shortlist", "candidates_from", "min_recall", "recall_mentions", "index_memory", "shard"])]
    pub ranking: Option<PathBuf>,

    /// Another run file of the same lists to compare the first with, over the mentions that both rank: the difference
    /// of MRR with its bootstrap interval and a paired t-test.
    #[arg(long, value_name = "FILE", requires = "ranking", conflicts_with_all = ["features", "model"])]
    pub against: Option<PathBuf>,

    /// Mentions to rank.
    #[arg(long, default_value = "test")]
    pub split: Split,

    /// What a mention's gold entity is ranked among.
    #[arg(long, value_enum, default_value_t)]
    pub protocol: Among,

    /// What becomes of mentions whose candidates lack the gold entity.
    #[arg(long, default_value = "drop")]
    pub gold_missing: GoldMissing,

    /// Of a whole knowledge base: entities of each mention that run.jsonl lists; ranks are those among all.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one())]
    pub top: usize,

    #[command(flatten)]
    pub whole: WholeKbArgs,

    /// Draws the order of the candidates, or of the knowledge base, which decides ties.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    #[command(flatten)]
    pub device: DeviceArgs,

    #[command(flatten)]
    pub memory: FeatureMemoryArgs,

    #[command(flatten)]
    pub shard: ShardArgs,

    /// Where to write metrics.json and run.jsonl; of a run file, metrics.json alone, and only if a folder is given.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// What a mention's gold entity is ranked among.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Among {
    /// The candidates of its list.
    #[default]
    Lists,
    /// All entities of the knowledge base, by the whole model or, with --shortlist, those that a first stage finds.
    WholeKb,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match (&args.ranking, &args.features, &args.model, &args.out) {
        (Some(ranking), ..) => ranking::judge(&args, ranking),
        (None, Some(features), Some(model), Some(out)) => judge_model(&args, (features, model), out),
        (None, Some(_), Some(model), None) => {
            // What would be wrong with it next is said first.
            TrainedModel::read(model)?;
            let missing = "--out <DIR> is missing: the folder for metrics.json and run.jsonl";
            super::Cli::command().error(ErrorKind::MissingRequiredArgument, missing).exit()
        }
        // The parser requires them.
        _ => anyhow::bail!("--features and --model, or --ranking"),
    }
}

/// Each H@k's interval by its name.
fn intervals(metrics: &Metrics) -> anyhow::Result<serde_json::Map<String, serde_json::Value>> {
    Ok(metrics.intervals()?.into_iter().map(|(name, interval)| (name.to_string(), json!(interval))).collect())
}

/// What a model made of a split, or of a share of it.
struct Judged {
    /// Those that were ranked.
    samples: Vec<Sample>,
    evaluation: Evaluation,
    counts: Counts,
    /// Metrics of rankings without a model, by their names, and the same as metrics.json has them.
    without_model: Vec<(&'static str, Metrics)>,
    baselines: Value,
    protocol: Value,
    /// What was ranked, of a whole knowledge base.
    whole: Option<Value>,
    /// What a first stage found, to be printed.
    recall: Option<String>,
}

/// Ranks a split with a model.
fn judge_model(args: &Args, (features, model): (&Path, &Path), out: &Path) -> anyhow::Result<()> {
    let reads = [("--data", args.data.data.as_path()), ("--features", features)];
    paths::keep_apart(&reads, &[("--out", out)])?;
    let shard = args.shard.part()?;
    if shard.is_none() {
        paths::no_other_kind("--out", out, &[Holds::Run])?;
        files::expect_folder_at(out)?;
    }
    let whole = args.protocol == Among::WholeKb;
    ensure!(whole || args.whole.shortlist.is_none(), "--shortlist is a first stage of --protocol whole-kb; add that");
    let drops = args.gold_missing == GoldMissing::Drop;
    ensure!(!whole || drops, "--gold-missing is of lists, and --protocol whole-kb ranks without them; leave it out");
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let batcher = batcher(&dataset, features)?;
    let gpu = args.memory.open(&args.device)?;
    let trained = TrainedModel::read(model)?;
    trained.check(batcher.store().manifest(), features)?;
    // Of the whole knowledge base, lists are not read.
    let lists = (!whole).then_some(args.gold_missing);
    let mentions = dataset.ranked_mentions(args.split, lists, &mut skipped)?;
    list_skipped(&skipped);
    let begin = |shard| shard::begin(out, "eval", shard, run_of(args, &dataset, (features, model), gpu.as_ref())?);
    let mut part = shard.map(begin).transpose()?;
    let judged = match args.protocol {
        Among::Lists => judge_lists(args, (&trained.model, gpu.as_ref()), &batcher, &mentions, part.as_mut())?,
        Among::WholeKb => {
            let entities = dataset.entities().len();
            let paths = (features, model);
            let stage = args.whole.stage(args.seed, (&dataset, &batcher), paths, &trained.model)?;
            judge_whole(args, (&trained.model, gpu.as_ref()), (&batcher, entities), &mentions, stage, part.as_mut())?
        }
    };
    let Judged { samples, evaluation, counts, .. } = &judged;
    let device = describe(gpu.as_ref());
    let mut metrics = json!({
        "split": args.split.to_string(),
        "mean": Value::Null,
        "wilson_95": Value::Null,
        "per_score": Value::Null,
        "baselines": judged.baselines,
        "counts": counts,
        "entities_without_image": batcher.entities_without_image(),
        "gold_missing": args.gold_missing,
        "protocol": judged.protocol,
        "whole_kb": judged.whole,
        "model": trained.model.config(),
        "epoch": trained.epoch,
        "features": batcher.store().manifest(),
        "candidate_order_seed": args.seed,
        "training": trained.origin,
        "provenance": Provenance::new(device.clone(), dataset.checksum()?),
    });
    let kinds: Vec<&str> = evaluation.per_score.iter().map(|(kind, _)| *kind).collect();
    let ranks: Vec<GoldRanks> = evaluation.ranked.iter().map(Ranked::gold_ranks).collect();
    let recall = judged.recall.iter();
    if let Some(part) = part {
        write_run(&part.folder().join(RUN), &dataset, samples, evaluation)?;
        shard::finish(part, &[RUN], json!(Piece { metrics, kinds: owned(&kinds), ranks }))?;
        recall.for_each(|line| println!("{line}"));
        println!("{} mentions of {}, epoch {} of the model; {device}", samples.len(), args.split, trained.epoch);
        return Ok(());
    }
    let without_model: Vec<(&str, &Metrics)> = judged.without_model.iter().map(|(name, m)| (*name, m)).collect();
    let said = complete(&mut metrics, &kinds, &ranks, &without_model)?;
    let said = recall.cloned().chain([said]).collect::<Vec<_>>().join("\n");
    write_both(out, &metrics, |run| Ok(write_run(run, &dataset, samples, evaluation)?), &said)
}

/// Writes metrics.json and run.jsonl, which are of each other: neither takes its place before both are whole. Then says what
/// they come to.
pub fn write_both(
    out: &Path,
    metrics: &Value,
    run: impl FnOnce(&Path) -> anyhow::Result<()>,
    said: &str,
) -> anyhow::Result<()> {
    let [metrics_at, run_at] = [METRICS, RUN].map(|name| out.join(name));
    let mut refused = None;
    let written = files::write_whole(&metrics_at, |to| {
        writeln!(to, "{metrics:#}")?;
        to.flush()?;
        run(&run_at).map_err(|error| io::Error::other(refused.insert(error).to_string()))
    });
    if let Some(error) = refused {
        return Err(error);
    }
    written?;
    println!("{said}");
    println!("wrote {} and {}", metrics_at.display(), run_at.display());
    Ok(())
}

/// What a part of an evaluation gives to be joined.
#[derive(Serialize, Deserialize)]
pub struct Piece {
    /// metrics.json, but for what all ranks come to.
    pub metrics: Value,
    /// Names of the scores.
    pub kinds: Vec<String>,
    /// Of each mention of the part.
    pub ranks: Vec<GoldRanks>,
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

/// Puts what the ranks of all mentions come to into what metrics.json says beside, and gives it in words.
pub fn complete(
    metrics: &mut Value,
    kinds: &[&str],
    ranks: &[GoldRanks],
    without_model: &[(&str, &Metrics)],
) -> anyhow::Result<String> {
    let [split, epoch, device] = [&metrics["split"], &metrics["epoch"], &metrics["provenance"]["device"]];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let mut said =
        vec![format!("{} mentions of {}, epoch {epoch} of the model; {}", ranks.len(), text(split), text(device))];
    let (mean, per_score) = metrics_of(ranks, kinds.len());
    let scores = kinds.iter().copied().zip(&per_score);
    let rows = [("mean", &mean)].into_iter().chain(scores.clone()).chain(without_model.iter().copied());
    said.push(metrics_table(rows).to_string());
    said.push(hits_line(&mean)?);
    if metrics["protocol"] == "shortlist" {
        let (missed, length) =
            (ranks.iter().filter(|ranks| !ranks.found).count(), &metrics["whole_kb"]["shortlist"]["length"]);
        said.push(format!(
            "{missed} gold entities are not among the first stage's {length}: each counts as ranked right behind them, so that MR, MRR and \
             the single scores are those of such lists, not of the whole knowledge base that chance is of"
        ));
    }
    metrics["mean"] = json!(mean);
    metrics["wilson_95"] = json!(intervals(&mean)?);
    metrics["per_score"] = scores.map(|(kind, metrics)| (kind.to_string(), json!(metrics))).collect();
    Ok(said.join("\n"))
}

/// What parts of an evaluation depend on.
fn run_of(args: &Args, dataset: &Dataset, (features, model): (&Path, &Path), gpu: Option<&Gpu>) -> anyhow::Result<Run> {
    let whole = args.protocol == Among::WholeKb;
    let settings = [
        ("features", shard::features(features)?),
        ("model", shard::model(model)?),
        ("split", json!(args.split.to_string())),
        ("protocol", json!(if whole { "whole-kb" } else { "lists" })),
        ("gold_missing", json!(args.gold_missing)),
        ("seed", json!(args.seed)),
        ("top", json!(whole.then_some(args.top))),
        ("shortlist", json!(args.whole.first_stage(args.seed))),
        ("candidates_from", json!(args.whole.candidates_from.to_string())),
        ("search_breadth", json!(args.whole.database.breadth())),
        ("skip_bad", json!(args.data.skip_bad)),
    ];
    shard::run_of(dataset, arithmetic_of(gpu), &settings)
}

/// Those of the part, if there is one, and then all; shares begin at multiples of `unit`.
fn share(samples: Vec<Sample>, part: Option<&mut Part>, unit: usize) -> (Vec<Sample>, Option<Vec<Sample>>) {
    match part {
        None => (samples, None),
        Some(part) => (samples[part.share("mentions", samples.len(), unit)].to_vec(), Some(samples)),
    }
}

/// Ranks the candidates of lists.
fn judge_lists(
    args: &Args,
    (model, gpu): (&Model, Option<&Gpu>),
    batcher: &Batcher,
    mentions: &[Mention],
    part: Option<&mut Part>,
) -> anyhow::Result<Judged> {
    let (mut samples, counts) = batcher.samples(mentions, args.seed, args.gold_missing)?;
    report_counts(&args.split.to_string(), &counts, args.gold_missing);
    ensure!(!samples.is_empty(), "no mention of {} is left to rank", args.split);
    let baselines = Baselines::of(&samples, mentions);
    samples = share(samples, part, computed_together(model, gpu)).0;
    let bar = progress("entities and mentions");
    let evaluation = evaluate(&model.to(gpu)?, batcher, &samples, &bar)?;
    bar.finish_and_clear();
    let Baselines { list_order, chance } = baselines;
    Ok(Judged {
        samples,
        evaluation,
        counts,
        without_model: vec![("the lists' order", list_order), ("chance", chance)],
        baselines: json!(baselines),
        protocol: json!(Protocol::of(if args.gold_missing == GoldMissing::Miss { counts.gold_missing } else { 0 })),
        whole: None,
        recall: None,
    })
}

/// Ranks the whole knowledge base, of so many entities.
fn judge_whole(
    args: &Args,
    model: (&Model, Option<&Gpu>),
    (batcher, entities): (&Batcher, usize),
    mentions: &[Mention],
    stage: Option<FirstStage>,
    part: Option<&mut Part>,
) -> anyhow::Result<Judged> {
    let (all, counts) = batcher.without_lists(mentions)?;
    let chance = Metrics { mentions: all.len(), ..chance(&[(entities, true)]) };
    // Prepared on the host, mentions have the same bits whatever they are prepared with.
    let (samples, all) = share(all, part, if model.1.is_some() { WHOLE_KB_BATCH } else { 1 });
    report_counts(&args.split.to_string(), &counts, args.gold_missing);
    let shortlist = args.whole.first_stage(args.seed);
    let settings = WholeKb { top: args.top, seed: args.seed, keeping: args.whole.keeping(true), shortlist: stage };
    let bar = progress("entities and mentions");
    let WholeKbEvaluation { samples, evaluation, recall } =
        evaluate_whole(model, (batcher, entities), (&samples, all.as_ref().unwrap_or(&samples)), &settings, &bar)?;
    bar.finish_and_clear();
    let said =
        shortlist.as_ref().zip(recall.as_ref()).map(|(settings, recall)| recall_line(settings, entities, recall));
    Ok(Judged {
        samples,
        evaluation,
        counts,
        without_model: vec![("chance", chance)],
        baselines: json!({"chance": chance}),
        protocol: json!(if shortlist.is_some() { "shortlist" } else { "whole-kb" }),
        whole: Some(json!({
            "entities": entities,
            "listed": args.top,
            "shortlist": shortlist,
            "candidates_from": shortlist.map(|_| args.whole.candidates_from.to_string()),
            "search_breadth": args.whole.database.breadth(),
            "recall": recall,
        })),
        recall: said,
    })
}
