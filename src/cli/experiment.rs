//! `fissfuse experiment`

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fissfuse::data::Skipped;
use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::eval::RunRanks;
use fissfuse::experiment::{
    Asked, BUILT_IN, Data, ExperimentFile, Options, Outcome, Plan, Question, Reranked, Shard, Summary, ask, claim,
    experiment_text,
};
use fissfuse::files;
use fissfuse::interrupt;
use fissfuse::kar::Scoring;
use fissfuse::kar::endpoint::Endpoint;
use fissfuse::kar::model::LanguageModel;
use fissfuse::llama::LlamaConfig;
use fissfuse::report::Paper;
use fissfuse::terminal;
use indicatif::ProgressBar;

use super::common::{DataArgs, at_least_one, batcher, list_skipped, progress, write_json};
use super::language_model::{LanguageModelArgs, NONE_GIVEN};
use super::paths;

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
    #[arg(long, value_name = "DIR", required_unless_present = "show")]
    data: Option<PathBuf>,

    /// Leave out bad records and images, count and list them, instead of stopping at the first.
    #[arg(long)]
    skip_bad: bool,

    /// Feature store that `fissfuse encode` made; all rows share it.
    #[arg(long, value_name = "DIR", required_unless_present = "show")]
    features: Option<PathBuf>,

    /// Folder of the experiment.
    #[arg(long, value_name = "DIR", required_unless_present = "show")]
    out: Option<PathBuf>,

    /// Configuration file whose [model] and [train] all rows start from [default: the settings of configs/wikimel.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// What computes: cpu, cuda, cuda:N or auto; jobs take several, set apart by commas, in turn. A Llama takes the first.
    #[arg(long, value_name = "DEVICE", value_delimiter = ',', default_value = "auto")]
    device: Vec<DeviceChoice>,

    /// On CUDA devices: products of 16-bit values on tensor cores, or of f32.
    #[arg(long, value_name = "KIND", default_value = "mixed")]
    arithmetic: Arithmetic,

    /// Trainings at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    jobs: usize,

    /// Compute only a part of what is left, the i-th of n: for several processes on one folder.
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,

    /// Run file of a row that is not trained here; may be given again.
    #[arg(long = "run", value_name = "NAME=FILE", value_parser = named)]
    runs: Vec<(String, PathBuf)>,

    /// Stand the paper's values beside the table's: of WikiMEL or WikiDiverse.
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
    // The parser requires them.
    let (Some(data), Some(features), Some(out)) = (&args.data, &args.features, &args.out) else {
        anyhow::bail!("--data, --features and --out, or --show");
    };
    let data_args = DataArgs { data: data.clone(), skip_bad: args.skip_bad };
    let _watch = interrupt::watch()?;
    terminal::work_on();
    paths::keep_apart(&[("--data", &data_args.data), ("--features", features)], &[("--out", out)])?;
    files::expect_folder_at(out)?;
    paths::no_other_kind("--out", out, &[])?;
    check_names(&args, &file)?;
    check_models(&args, &file)?;
    let config = args.config.as_deref().map(|path| -> anyhow::Result<toml::Table> {
        let text = files::read_text_or_stream(path)?;
        toml::from_str(&text).with_context(|| format!("{}: is no configuration", path.display()))
    });
    let config = config.transpose()?;
    let mut skipped = Skipped::default();
    let dataset = data_args.open(&mut skipped)?;
    let batcher = batcher(&dataset, features)?;
    let plan = Plan::new(&file, config.as_ref(), batcher.store().manifest())?;
    let data = Data::read(&dataset, &batcher, plan.gold_missing()?, &mut skipped)?;
    plan.expect_choices(&data)?;
    let tolerance = data_args.tolerance();
    let mut runs = HashMap::new();
    for (name, path) in &args.runs {
        runs.insert(name.clone(), RunRanks::read(path, &dataset, &data.test, tolerance, &mut skipped)?);
    }
    list_skipped(&skipped);
    files::create_folder(out)?;
    claim(out, &data)?;
    let Args { jobs, shard, arithmetic, device, .. } = &args;
    let options = Options { out, jobs: *jobs, devices: device, arithmetic: *arithmetic, shard: *shard };
    let (outcome, summary) = loop {
        let outcome = fissfuse::experiment::run(&plan, &data, &options, &|line| eprintln!("{line}"))?;
        let reranked = rerank_all(&args, (&file, &plan), &data, &outcome)?;
        let mut summary = Summary::new((&file, &plan), &data, &outcome, (out, &runs), reranked)?;
        if let Some(dataset) = &args.beside {
            summary.stand_beside(&file, &Paper::built_in()?, dataset);
        }
        write_json(&out.join("summary.json"), &summary)?;
        files::write_whole(&out.join("summary.txt"), |out| write!(out, "{}", experiment_text(&summary)))?;
        // Another process may have ended with more than this one saw, and its table was written over now.
        if !outcome.is_overtaken(out) {
            break (outcome, summary);
        }
    };
    println!("{}", experiment_text(&summary));
    println!("wrote {} and summary.txt", out.join("summary.json").display());
    let (failed, elsewhere) = (outcome.failed.len(), outcome.elsewhere.len());
    if elsewhere > 0 {
        println!(
            "{elsewhere} trials are other processes'; when they are finished, the same command completes the table"
        );
    }
    let unasked = summary.reranked.iter().filter(|reranked| reranked.missing.is_some()).count();
    anyhow::ensure!(failed == 0, "{failed} trials failed; the same command tries them again");
    anyhow::ensure!(
        unasked == 0 || elsewhere > 0 || !gives_models(&args),
        "{unasked} re-rankings failed; the same command tries them again"
    );
    Ok(())
}

/// Whether a language model was given, by whatever flag.
fn gives_models(args: &Args) -> bool {
    args.model.is_given() || !args.llms.is_empty()
}

/// Fails if what is given by name has no place in the experiment, or is given twice.
fn check_names(args: &Args, file: &ExperimentFile) -> anyhow::Result<()> {
    let of_rows: Vec<&str> = file.rows.iter().filter(|row| row.run_file).map(|row| row.name.as_str()).collect();
    let of_questions: Vec<&str> = file.rerank.iter().filter_map(|question| question.llm.as_deref()).collect();
    for (flag, given, there) in [("--run", &args.runs, of_rows), ("--named-llm", &args.llms, of_questions)] {
        for (at, (name, _)) in given.iter().enumerate() {
            let all = if there.is_empty() { "none".into() } else { there.join(", ") };
            anyhow::ensure!(
                there.contains(&name.as_str()),
                "{flag} {name}: the experiment has no such name; it has {all}"
            );
            anyhow::ensure!(given[..at].iter().all(|(other, _)| other != name), "{flag} {name} is given twice");
        }
    }
    Ok(())
}

/// Fails if a language model that will be asked cannot be opened, as far as can be seen before anything is trained.
fn check_models(args: &Args, file: &ExperimentFile) -> anyhow::Result<()> {
    let folders = args.llms.iter().map(|(_, folder)| folder).chain(&args.model.llm);
    for folder in folders.filter(|_| !file.rerank.is_empty()) {
        LlamaConfig::read(folder)?;
    }
    args.model.endpoint()?.map(Endpoint::new).transpose()?;
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

/// Asks all questions about each row's ranking with the first seed, as far as that is there. What a model fails at is a hole.
fn rerank_all(
    args: &Args,
    (file, plan): (&ExperimentFile, &Plan),
    data: &Data,
    outcome: &Outcome,
) -> anyhow::Result<Vec<Reranked>> {
    let (mut all, bar) = (Vec::new(), progress("mentions"));
    for (number, planned) in plan.rows.iter().enumerate() {
        let trial = outcome.chosen[number].and_then(|point| plan.chosen(number, point).into_iter().next());
        let trial = trial.filter(|trial| outcome.finished.contains_key(&trial.folder));
        for question in &file.rerank {
            let (row, name) = (planned.row.name.clone(), question.name.clone());
            let asked = match &trial {
                None => Err(anyhow::anyhow!("its ranking is not there")),
                Some(trial) => ask_one(
                    args,
                    question,
                    &args.out.as_deref().unwrap_or(Path::new("")).join(&trial.folder),
                    data,
                    &bar,
                ),
            };
            let (asked, missing) = match asked {
                Ok(asked) => (Some(asked), None),
                Err(error) => match error.downcast_ref::<fissfuse::Error>() {
                    Some(fissfuse::Error::Stopped { .. }) => return Err(error),
                    _ => (None, Some(error.to_string())),
                },
            };
            all.push(Reranked { row, question: name, asked, missing });
        }
    }
    bar.finish_and_clear();
    Ok(all)
}

fn ask_one(args: &Args, question: &Question, folder: &Path, data: &Data, bar: &ProgressBar) -> anyhow::Result<Asked> {
    let device = args.device.first().copied().unwrap_or_default();
    let named = |name: &String| {
        let found = args.llms.iter().find(|(named, _)| named == name);
        found.map(|(_, folder)| folder).with_context(|| format!("no Llama is given for it (--named-llm {name}=DIR)"))
    };
    let llama = question.llm.as_ref().map(named).transpose()?;
    anyhow::ensure!(llama.is_some() || args.model.is_given(), NONE_GIVEN);
    let own = llama.is_some() || args.model.llm.is_some();
    let scoring = if own { Scoring::Letters } else { Scoring::Generate };
    let open = || -> anyhow::Result<Box<dyn LanguageModel>> {
        let (model, _) = match llama {
            Some(folder) => args.model.llama(folder, device)?,
            None => args.model.open(args.model.endpoint()?.map(Endpoint::new).transpose()?, device)?,
        };
        Ok(model)
    };
    ask(question, folder, data, scoring, open, bar)
}
