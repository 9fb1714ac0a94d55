//! `fissfuse rerank`

mod parts;
mod printed;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ArgGroup;
use fissfuse::data::{Dataset, Protocol, Ranking, RunFile, Skipped, Split};
use fissfuse::device::DeviceChoice;
use fissfuse::files;
use fissfuse::files::names::RUN;
use fissfuse::kar::endpoint::Endpoint;
use fissfuse::kar::model::LanguageModel;
use fissfuse::kar::{
    Budget, Fate, Fusion, Header, Journal, Order, Report, Scoring, Settings, Strategy, Template, expect_alike,
    fit_weights, rerank_share, sample, write_run,
};
use fissfuse::provenance::Provenance;
use fissfuse::shard::Shard;
use fissfuse::terminal;
use serde_json::json;

pub use self::parts::Piece;
use self::printed::print_fusion;
pub use self::printed::print_report;
use super::common::{DataArgs, at_least_one, list_skipped, progress, write_json};
use super::language_model::{LanguageModelArgs, Opened};
use super::paths;
use super::shard::{self, ShardArgs};
use super::trace::TraceArgs;

/// Re-rank the first candidates of any ranking by asking a language model (KAR).
///
/// A run file has a line per mention: {"mention_id", "candidates": [qid, ...] best first, "scores"?: [...]}; `eval` writes
/// such files, and what `link` writes is read too. Answers are appended to a journal as they arrive: a run that was
/// stopped goes on where it stopped.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("drawn").args(["order", "debias", "fuse"]).multiple(true)))]
#[command(group(ArgGroup::new("asked").args(["llm", "endpoint", "show_prompt"]).required(true).multiple(true)))]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,

    /// Run file to re-rank.
    #[arg(long, value_name = "FILE")]
    ranking: PathBuf,

    /// Split that the run file's mentions belong to.
    #[arg(long, default_value = "test")]
    split: Split,

    #[command(flatten)]
    model: LanguageModelArgs,

    /// Where the Llama computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t, conflicts_with = "endpoint")]
    device: DeviceChoice,

    /// What is asked: which candidate fits, or the order of all.
    #[arg(long, value_enum, default_value_t = Strategy::SelectOne)]
    strategy: Strategy,

    /// Candidates that are asked about.
    #[arg(long, default_value_t = 5)]
    k: usize,

    /// In which order the model sees them: as the ranking has them, drawn for each mention, or the ranking's from its end.
    #[arg(long, value_enum, default_value_t)]
    order: Order,

    /// Read the letters' logits, or a text [default: logits with --llm, generate with --endpoint].
    #[arg(long, value_enum)]
    scoring: Option<Scoring>,

    /// Keep the old order where the options' letters have less than this share of the probability (--scoring logits).
    #[arg(long, value_name = "SHARE", default_value_t = Settings::default().least_share)]
    least_share: f64,

    /// Most tokens of an answer that is a text.
    #[arg(long, value_name = "N", default_value_t = Settings::default().max_new_tokens)]
    max_new_tokens: usize,

    /// Ask only where the first candidate's confidence (the softmax of the scores) is less than this ahead of the second's.
    #[arg(long, value_name = "MARGIN")]
    gate: Option<f32>,

    /// Divide out the model's preference for letters, estimated on this share of the mentions (PriDe).
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = "0.05")]
    debias: Option<f64>,

    /// Divide it out although those mentions say that the ranking gets worse.
    #[arg(long, requires = "debias", conflicts_with = "fuse")]
    allow_worse: bool,

    /// Add the ranking's and the model's evidence, by weights that are fitted on mentions of this run file of the same
    /// method, whose right entities are looked at (--scoring logits). The model counts only if it helps.
    #[arg(long, value_name = "FILE", conflicts_with = "debias")]
    fuse: Option<PathBuf>,

    /// Split that its mentions belong to.
    #[arg(long, default_value = "valid", value_name = "SPLIT", requires = "fuse", conflicts_with = "debias")]
    fuse_split: Split,

    /// Most of its mentions that are drawn to fit the weights on.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one(), requires = "fuse", conflicts_with = "debias")]
    fuse_mentions: usize,

    /// Draws orders, and the mentions on which weights are fitted or that preference is estimated.
    #[arg(long, default_value_t = 0, requires = "drawn")]
    seed: u64,

    /// Template of the instruction [default: the built-in one of the strategy; docs/kar.md].
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,

    /// Most words of a candidate's description.
    #[arg(long, value_name = "N", default_value_t = Budget::default().description_words)]
    description_words: usize,

    /// Most words of the sentence, which is cut around the mention.
    #[arg(long, value_name = "N", default_value_t = Budget::default().sentence_words, value_parser = at_least_one())]
    sentence_words: usize,

    /// Print the first mention's instruction and ask nothing.
    #[arg(long, conflicts_with = "shard")]
    show_prompt: bool,

    /// File that answers are appended to [default: the name of --out and .journal.jsonl; of a part, in its folder].
    #[arg(long, value_name = "FILE", conflicts_with = "shard")]
    journal: Option<PathBuf>,

    #[command(flatten)]
    shard: ShardArgs,

    /// Run file to write; with --shard, folder of the parts of it.
    #[arg(long, value_name = "FILE", required_unless_present = "show_prompt")]
    out: Option<PathBuf>,

    /// Report to write, as JSON; of parts, `fissfuse merge` writes it.
    #[arg(long, value_name = "FILE", conflicts_with = "shard")]
    report: Option<PathBuf>,

    #[command(flatten)]
    trace: TraceArgs,
}

impl Args {
    /// Refuses names that meet, before anything starts: what is written must be none of what is read, and no two files
    /// that are written may be one. Nor may one of them be such that it cannot be written.
    fn check_files(&self, outputs: &[paths::Named]) -> anyhow::Result<()> {
        let authorities = self.model.authorities();
        let mut reads = vec![("--ranking", self.ranking.as_path()), ("--data", &self.data.data)];
        reads.extend(self.fuse.as_deref().map(|path| ("--fuse", path)));
        reads.extend(self.template.as_deref().map(|path| ("--template", path)));
        reads.extend(authorities.as_deref().map(|path| ("--ca-file", path)));
        reads.extend(self.model.llm.as_deref().map(|path| ("--llm", path)));
        let others: Vec<paths::Named> =
            self.report.iter().map(|path| ("--report", path.as_path())).chain(self.trace.written()).collect();
        paths::keep_apart(&reads, &[outputs, &others].concat())?;
        Ok(others.iter().try_for_each(|(_, path)| files::expect_file_at(path))?)
    }

    /// Where answers are kept: beside the run file, but not where that is a pipe or a device, which has no place beside it.
    fn journal(&self, out: &Path) -> anyhow::Result<Option<PathBuf>> {
        match &self.journal {
            Some(journal) => Ok(Some(journal.clone())),
            None if files::is_stream(out)? => {
                eprintln!("{} is no file: answers are kept in no journal (--journal FILE)", out.display());
                Ok(None)
            }
            None => Ok(Some(Journal::beside(out))),
        }
    }

    /// The rankings that weights are fitted on, if they are.
    fn fuse_rankings(&self, dataset: &Dataset) -> anyhow::Result<Option<Vec<Ranking>>> {
        let Some(path) = &self.fuse else { return Ok(None) };
        let mut skipped = Skipped::default();
        let mentions = dataset.mentions(self.fuse_split, &mut skipped)?;
        let rankings = RunFile::read(path)?.rankings(dataset, &mentions, self.data.tolerance(), &mut skipped)?;
        let rankings = rankings.complete(path, self.data.tolerance(), &mut skipped)?;
        list_skipped(&skipped);
        let drawn = sample(&rankings, self.fuse_mentions, self.seed);
        anyhow::ensure!(
            !drawn.is_empty(),
            "{}: none of its {} mentions has a gold entity; --fuse needs them to fit weights by",
            path.display(),
            rankings.len()
        );
        Ok(Some(drawn))
    }

    fn settings(&self) -> Settings {
        let default = if self.model.llm.is_some() { Scoring::Letters } else { Scoring::Generate };
        Settings {
            strategy: self.strategy,
            k: self.k,
            order: self.order,
            scoring: self.scoring.unwrap_or(default),
            least_share: self.least_share,
            max_new_tokens: self.max_new_tokens,
            gate: self.gate,
            debias: self.debias,
            allow_worse: self.allow_worse,
            weights: None,
            seed: self.seed,
            budget: Budget { description_words: self.description_words, sentence_words: self.sentence_words },
            skip_refused: self.data.skip_bad,
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.settings();
    settings.check()?;
    if args.fuse.is_some() {
        settings.check_fusable()?;
        anyhow::ensure!(
            args.fuse_split != args.split,
            "--fuse-split and --split are both {}: weights are fitted on other mentions than those that are re-ranked",
            args.split
        );
    }
    if !args.show_prompt {
        terminal::work_on();
    }
    let out = args.out.clone().unwrap_or_default();
    if let Some(shard) = args.shard.part()? {
        let folder = out.join(shard.folder());
        let (run, journal) = (folder.join(RUN), folder.join(parts::JOURNAL));
        args.check_files(&[("--out", &out), ("--out", &run), ("--journal", &journal)])?;
        return args.trace.clone().around_unwatched(|| ask(args, settings, run, Some(journal), Some((out, shard))));
    }
    let journal = if args.show_prompt { None } else { args.journal(&out)? };
    if !args.show_prompt {
        let mut writes = vec![("--out", out.as_path())];
        writes.extend(journal.as_deref().map(|path| ("--journal", path)));
        args.check_files(&writes)?;
        writes.iter().try_for_each(|(_, path)| files::expect_file_at(path))?;
        if let Some(journal) = journal.as_deref().filter(|journal| journal.exists()) {
            files::expect_regular(journal)?;
        }
    }
    args.trace.clone().around_unwatched(|| ask(args, settings, out, journal, None))
}

/// Fits the weights of the ranking and of the model.
fn fuse(
    rankings: &[Ranking],
    dataset: &Dataset,
    template: &Template,
    settings: &Settings,
    model: &mut dyn LanguageModel,
    journal: Option<&mut Journal>,
) -> anyhow::Result<Fusion> {
    let bar = progress("mentions to fit weights on");
    let fitted = fit_weights(rankings, dataset, template, settings, model, journal, &bar)?;
    bar.finish_and_clear();
    Ok(fitted)
}

/// Asks, and writes the new rankings to `out`: all, or those of a part, whose folder lies in the one that comes with it.
fn ask(
    args: Args,
    mut settings: Settings,
    out: PathBuf,
    journal: Option<PathBuf>,
    shard: Option<(PathBuf, Shard)>,
) -> anyhow::Result<()> {
    let endpoint = args.model.endpoint()?.map(Endpoint::new).transpose()?;
    let template = match &args.template {
        Some(path) => Template::read(path)?,
        None => Template::built_in(settings.strategy)?,
    };
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let mentions = dataset.mentions(args.split, &mut skipped)?;
    let run = RunFile::read(&args.ranking)?;
    let rankings = run.rankings(&dataset, &mentions, args.data.tolerance(), &mut skipped)?;
    let rankings = rankings.complete(&args.ranking, args.data.tolerance(), &mut skipped)?;
    list_skipped(&skipped);
    if args.show_prompt {
        let first = rankings.first().context("the run file is empty")?;
        let shown = settings.shown(first);
        let entities = shown.iter().map(|&at| &dataset.entities()[first.candidates[at] as usize]);
        let prompt = template.render(&first.mention, &entities.collect::<Vec<_>>(), settings.budget)?;
        println!("{}\n---\n{}\n---\n{}", prompt.system, prompt.user, prompt.reply);
        return Ok(());
    }
    let others = args.fuse_rankings(&dataset)?;
    // Before anything is asked.
    others.as_deref().map_or(Ok(()), |others| expect_alike(others, &rankings))?;
    let Opened { mut model, device, arithmetic } = args.model.open(endpoint, args.device)?;
    let header = Header::new(&*model, &settings, &template, &dataset, &run)?;
    let begin = |(folder, shard): &(PathBuf, Shard)| {
        let run = parts::run_of(&args, &dataset, &settings, &header, arithmetic)?;
        shard::begin(folder, "rerank", *shard, run)
    };
    let mut part = shard.as_ref().map(begin).transpose()?;
    let share = part.as_mut().map_or(0..rankings.len(), |part| part.share("mentions", rankings.len(), 1));
    let mut journal = journal.map(|path| Journal::open(&path, &header)).transpose()?;
    if let Some(journal) = journal.as_ref().filter(|journal| !journal.is_empty()) {
        eprintln!("going on with {} answers of {}", journal.len(), journal.path().display());
    }
    let fusion = match others {
        Some(others) => Some(fuse(&others, &dataset, &template, &settings, &mut *model, journal.as_mut())?),
        None => None,
    };
    if let Some(fusion) = &fusion {
        print_fusion(fusion, args.fuse_split);
        settings.weights = Some(fusion.weights.clone());
    }
    let bar = progress("mentions");
    let all = (&rankings[..], share.clone());
    let outcome = rerank_share(all, &dataset, &template, &settings, &mut *model, journal.as_mut(), &bar)?;
    bar.finish_and_clear();
    let rankings = &rankings[share];
    write_run(&out, &dataset, rankings, &outcome.reranked)?;
    let mut report = Report::new(model.identity(), &settings, rankings, mentions.len(), &outcome);
    report.fusion = fusion;
    let provenance = Provenance::new(device, dataset.checksum()?);
    if let Some(part) = part {
        let fates = Fate::all(rankings, &outcome.reranked);
        let piece = Piece { report, fates, split: mentions.len(), provenance };
        shard::finish(part, &[RUN], json!(piece))?;
        print_report(&piece.report);
        return Ok(());
    }
    if let Some(path) = &args.report {
        write_report(path, &report, &provenance)?;
    }
    print_report(&report);
    let reported = args.report.map(|path| format!(" and {}", path.display())).unwrap_or_default();
    let kept = journal.map(|journal| format!("; answers are kept in {}", journal.path().display()));
    println!("wrote {}{reported}{}", out.display(), kept.unwrap_or_default());
    Ok(())
}

/// Writes a report with where it comes from.
pub fn write_report(path: &Path, report: &Report, provenance: &Provenance) -> anyhow::Result<()> {
    let mut value = json!(report);
    value["protocol"] = json!(Protocol::of(report.gold_missing));
    value["provenance"] = json!(provenance);
    write_json(path, &value)
}
