//! `fissfuse experiment`

mod asking;
mod sources;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fissfuse::data::{Skipped, Tolerance};
use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::eval::RunRanks;
use fissfuse::experiment::{
    BUILT_IN, Data, DatasetSource, DatasetsSummary, ExperimentFile, Options, Outcome, Plan, Question, Rerankings,
    Summary, claim, claim_for_several, expect_one_protocol, experiment_text, is_answered, standing,
};
use fissfuse::files;
use fissfuse::interrupt;
use fissfuse::report::Paper;
use fissfuse::shard::{Shard, ShardChoice};
use fissfuse::terminal;

use super::common::{at_least_one, list_skipped, progress, write_json};
use super::language_model::LanguageModelArgs;
use super::paths;
use super::shard::chosen;
use asking::{Models, check_models};
use sources::{Source, sources};

/// Reproduce a table or figure of the paper: train and evaluate all of its rows with several seeds, and compare them.
///
/// NAME is one of the built-in experiments, main, ablation, strategy, top-k, llm-size, data-scale, generality, errors,
/// qualitative and complexity, or a TOML file (docs/reproduce.md). What is finished is never computed again: the same command goes on after
/// a kill. Writes summary.json and summary.txt, and a folder for each row and seed.
#[derive(clap::Args)]
pub struct Args {
    /// A built-in experiment, or a file.
    name: String,

    /// Print the experiment's file, to change it, and do nothing.
    #[arg(long)]
    show: bool,

    /// Folder of the dataset (entities.jsonl, {train,valid,test}.jsonl, images/).
    #[arg(long, value_name = "DIR", requires = "features")]
    data: Option<PathBuf>,

    /// Leave out bad records and images, count and list them, instead of stopping at the first.
    #[arg(long)]
    skip_bad: bool,

    /// Feature store that `fissfuse encode` made; all rows share it.
    #[arg(long, value_name = "DIR", requires = "data", conflicts_with = "datasets")]
    features: Option<PathBuf>,

    /// In place of --data and --features, one of several datasets of one table: its name, folder, feature store, and
    /// its configuration if that is not --config; may be given again.
    #[arg(long = "dataset", value_name = "NAME=DIR,FEATURES[,CONFIG]", conflicts_with = "data")]
    datasets: Vec<DatasetSource>,

    /// Folder of the experiment.
    #[arg(long, value_name = "DIR", required_unless_present = "show")]
    out: Option<PathBuf>,

    /// Configuration file whose [model] and [train] all rows start from [default: the settings of configs/wikimel.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// What computes: cpu, cuda, cuda:N or auto; jobs take several, set apart by commas, in turn. A Llama takes the first.
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', default_value = "auto")]
    device: Vec<DeviceChoice>,

    /// On CUDA devices: products of 16-bit values and tf32 on tensor cores, of bf16 there, or of f32.
    #[arg(long, value_name = "KIND", default_value = "mixed")]
    arithmetic: Arithmetic,

    /// Trainings at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    jobs: usize,

    /// Compute only a part of what is left, the i-th of n: for several processes on one folder. `auto` takes i and n from the
    /// array job of Slurm or SGE that this is a task of.
    #[arg(long, value_name = "I/N|auto")]
    shard: Option<ShardChoice>,

    /// Run file of a row that is not trained here; with several datasets NAME@DATASET=FILE; may be given again.
    #[arg(long = "run", value_name = "NAME=FILE", value_parser = named)]
    runs: Vec<(String, PathBuf)>,

    /// Stand the paper's values beside the table's: of WikiMEL or WikiDiverse. Several datasets have them by name.
    #[arg(long, value_name = "DATASET", value_parser = ["WikiMEL", "WikiDiverse"])]
    beside: Option<String>,

    /// Llama of a question that names one; may be given again.
    #[arg(long = "named-llm", value_name = "NAME=DIR", value_parser = named)]
    llms: Vec<(String, PathBuf)>,

    #[command(flatten)]
    model: LanguageModelArgs,
}

/// Parses `NAME=PATH`.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_string(), path.into())),
        _ => Err("give a name and a path, such as GEMEL=gemel.jsonl".into()),
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let file = ExperimentFile::open(&args.name)?;
    if args.show {
        return show(&args.name);
    }
    let (sources, several) = sources(&args, &file)?;
    // The parser requires it.
    let out = args.out.as_deref().context("--out, or --show")?;
    let _watch = interrupt::watch()?;
    terminal::work_on();
    let read = sources.iter().flat_map(Source::reads).collect::<Vec<_>>();
    paths::keep_apart(&read, &[("--out", out)])?;
    files::expect_folder_at(out)?;
    paths::no_other_kind("--out", out, &[])?;
    check_names(&args, &file, several.then_some(&sources[..]))?;
    check_models(&args, &file)?;
    let mut skipped = Skipped::default();
    let opened = sources.iter().map(|source| source.open(&mut skipped)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut parts = Vec::new();
    for (source, (dataset, batcher)) in sources.iter().zip(&opened) {
        let mut part = || -> anyhow::Result<Part> {
            let plan = Plan::new(&file, source.config()?.as_ref(), batcher.store().manifest())?;
            let data = Data::read(dataset, batcher, plan.gold_missing()?, &mut skipped)?;
            plan.expect_choices(&data)?;
            let mut runs = HashMap::new();
            for (name, path) in source.runs(&args.runs) {
                let tolerance = if args.skip_bad { Tolerance::Skip } else { Tolerance::Strict };
                runs.insert(name, RunRanks::read(path, dataset, &data.test, tolerance, &mut skipped)?);
            }
            Ok(Part { source, plan, data, runs })
        };
        parts.push(source.told(part())?);
    }
    let named: Vec<(&str, &Data)> = parts.iter().map(|part| (part.source.name(), &part.data)).collect();
    expect_one_protocol(&named)?;
    list_skipped(&skipped);
    files::create_folder(out)?;
    if several {
        claim_for_several(out)?;
    }
    for part in &parts {
        files::create_folder(&part.source.out)?;
        claim(&part.source.out, &part.data)?;
    }
    let models = Models::new(&args);
    for part in &parts {
        part.source.told(part.expect_own_answers(&models, &file))?;
    }
    let shard = args.shard.map(chosen).transpose()?.unwrap_or(Shard::WHOLE);
    let mut ran =
        parts.iter().map(|part| part.run(&args, shard, &models, &file)).collect::<anyhow::Result<Vec<Ran>>>()?;
    let text = loop {
        let text = match several {
            false => experiment_text(&ran[0].summary),
            true => {
                let named = parts.iter().map(|part| part.source.name()).zip(ran.iter().map(|ran| &ran.summary));
                let all = DatasetsSummary::new(&named.collect::<Vec<_>>()).context("no dataset is given")?;
                write_json(&out.join("summary.json"), &all)?;
                let text = all.text();
                files::write_whole(&out.join("summary.txt"), |out| write!(out, "{text}"))?;
                text
            }
        };
        // Another process may have ended with more than this one saw, and its table was written over now.
        match (0..parts.len()).find(|&at| ran[at].is_overtaken(&parts[at])) {
            Some(at) => ran[at] = parts[at].run(&args, shard, &models, &file)?,
            None => break text,
        }
    };
    println!("{text}");
    println!("wrote {} and summary.txt", out.join("summary.json").display());
    conclude(&ran)
}

/// A dataset with what is to be done on it.
struct Part<'s> {
    source: &'s Source,
    plan: Plan,
    data: Data<'s>,
    runs: HashMap<String, RunRanks>,
}

/// What was done on a dataset.
struct Ran {
    outcome: Outcome,
    summary: Summary,
    failed: usize,
    asked_elsewhere: Vec<PathBuf>,
}

impl Part<'_> {
    /// Fails if answers that are there are not those of the models that are given, or of other settings: a table that has them
    /// would be written over by one with holes.
    fn expect_own_answers(&self, models: &Models, file: &ExperimentFile) -> anyhow::Result<()> {
        let Part { source, plan, data, .. } = self;
        if file.rerank.is_empty() {
            return Ok(());
        }
        let standing = standing(plan, data, &source.out)?;
        let expect = |question: &Question, folder: &Path| models.expect_own(question, folder);
        Rerankings::expect((file, plan), &standing, &source.out, expect)
    }

    /// Computes what is left, and writes the table.
    fn run(&self, args: &Args, shard: Shard, models: &Models, file: &ExperimentFile) -> anyhow::Result<Ran> {
        let Part { source, plan, data, runs } = self;
        let out = &source.out;
        let Args { jobs, arithmetic, device, .. } = args;
        let options = Options { out, jobs: *jobs, devices: device, arithmetic: *arithmetic, shard };
        let said = |line: &str| match &source.name {
            Some(name) => eprintln!("{name}: {line}"),
            None => eprintln!("{line}"),
        };
        let outcome = fissfuse::experiment::run(plan, data, &options, &said)?;
        let bar = progress("mentions");
        let rerankings = Rerankings::new((file, plan), &outcome, &options, |question, folder, mine| {
            models.ask(question, (folder, mine), data, &bar)
        })?;
        bar.finish_and_clear();
        let Rerankings { all, elsewhere, failed } = rerankings;
        let mut summary = Summary::new((file, plan), data, &outcome, (out, runs), all)?;
        if let Some(dataset) = source.name.as_ref().or(args.beside.as_ref()) {
            summary.stand_beside(file, &Paper::built_in()?, dataset);
        }
        write_json(&out.join("summary.json"), &summary)?;
        files::write_whole(&out.join("summary.txt"), |out| write!(out, "{}", experiment_text(&summary)))?;
        Ok(Ran { outcome, summary, failed, asked_elsewhere: elsewhere })
    }
}

impl Ran {
    /// Whether another process has finished by now what was its to do.
    fn is_overtaken(&self, part: &Part) -> bool {
        self.outcome.is_overtaken(&part.source.out) || self.asked_elsewhere.iter().any(|answers| is_answered(answers))
    }
}

/// Says what is left to other processes. Fails if something failed.
fn conclude(ran: &[Ran]) -> anyhow::Result<()> {
    let count = |of: fn(&Ran) -> usize| ran.iter().map(of).sum::<usize>();
    let (failed, elsewhere) = (count(|ran| ran.outcome.failed.len()), count(|ran| ran.outcome.elsewhere.len()));
    let (unasked, asked_elsewhere) = (count(|ran| ran.failed), count(|ran| ran.asked_elsewhere.len()));
    for (count, what) in [(elsewhere, "trials"), (asked_elsewhere, "re-rankings")] {
        if count > 0 {
            println!(
                "{count} {what} are other processes'; when they are finished, the same command completes the table"
            );
        }
    }
    anyhow::ensure!(failed == 0, "{failed} trials failed; the same command tries them again");
    anyhow::ensure!(
        unasked == 0,
        "{unasked} re-rankings failed, for the reasons that the table gives; the same command tries them again"
    );
    Ok(())
}

/// Fails if what is given by name has no place in the experiment, or is given twice. Run files are of a row, or of a row
/// and one of several datasets.
fn check_names(args: &Args, file: &ExperimentFile, several: Option<&[Source]>) -> anyhow::Result<()> {
    let of_rows = file.rows.iter().filter(|row| row.run_file).map(|row| row.name.as_str());
    let of_rows: Vec<String> = match several {
        None => of_rows.map(String::from).collect(),
        Some(sources) => {
            of_rows.flat_map(|row| sources.iter().map(move |source| format!("{row}@{}", source.name()))).collect()
        }
    };
    let of_questions: Vec<String> = file.rerank.iter().filter_map(|question| question.llm.clone()).collect();
    for (flag, given, there) in [("--run", &args.runs, of_rows), ("--named-llm", &args.llms, of_questions)] {
        for (at, (name, _)) in given.iter().enumerate() {
            let all = if there.is_empty() { "none".into() } else { there.join(", ") };
            anyhow::ensure!(there.contains(name), "{flag} {name}: the experiment has no such name; it has {all}");
            anyhow::ensure!(given[..at].iter().all(|(other, _)| other != name), "{flag} {name} is given twice");
        }
    }
    Ok(())
}

/// Prints a built-in experiment's file.
fn show(name: &str) -> anyhow::Result<()> {
    let built_in = BUILT_IN.iter().find(|(built_in, _)| *built_in == name);
    let (_, text) =
        built_in.with_context(|| format!("--show is for built-in experiments; {name} is a file already"))?;
    print!("{text}");
    Ok(())
}
