//! `fissfuse rerank`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use fissfuse::data::{Protocol, RunFile, Skipped, Split};
use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::{DeviceChoice, describe};
use fissfuse::files;
use fissfuse::kar::endpoint::{Endpoint, EndpointSettings};
use fissfuse::kar::llama::{Batching, Decoder};
use fissfuse::kar::model::LanguageModel;
use fissfuse::kar::{
    Budget, Header, Journal, Report, Scoring, Settings, Strategy, Template, Unanswered, excerpt, rerank, write_run,
};
use fissfuse::llama::Precision;
use fissfuse::provenance::Provenance;
use fissfuse::report::{rank_change_table, reranking_table};
use serde_json::{Map, Value, json};

use super::common::{DataArgs, at_least_one, list_skipped, progress, write_json};
use super::paths;

/// Invalid answers that are shown on the terminal.
const SHOWN: usize = 3;

/// Re-rank the first candidates of any ranking by asking a language model (KAR).
///
/// A run file has a line per mention: {"mention_id", "candidates": [qid, ...] best first, "scores"?: [...]}; `eval` writes
/// such files, and what `link` writes is read too. Answers are appended to a journal as they arrive: a run that was
/// stopped goes on where it stopped.
#[derive(clap::Args)]
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
    model: ModelArgs,

    /// What is asked: which candidate fits, or the order of all.
    #[arg(long, value_enum, default_value_t = Strategy::SelectOne)]
    strategy: Strategy,

    /// Candidates that are asked about.
    #[arg(long, default_value_t = 5)]
    k: usize,

    /// Read the letters' logits, or a text [default: logits with --llm, generate with --endpoint].
    #[arg(long, value_enum)]
    scoring: Option<Scoring>,

    /// Most tokens of an answer that is a text.
    #[arg(long, value_name = "N", default_value_t = Settings::default().max_new_tokens)]
    max_new_tokens: usize,

    /// Ask only where the first candidate's confidence (the softmax of the scores) is less than this ahead of the second's.
    #[arg(long, value_name = "MARGIN")]
    gate: Option<f32>,

    /// Divide out the model's preference for letters, estimated on this share of the mentions (PriDe).
    #[arg(long, value_name = "SHARE", num_args = 0..=1, require_equals = true, default_missing_value = "0.05")]
    debias: Option<f64>,

    /// Draws the mentions on which that preference is estimated.
    #[arg(long, default_value_t = 0, requires = "debias")]
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
    #[arg(long)]
    show_prompt: bool,

    /// File that answers are appended to [default: the name of --out and .journal.jsonl].
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,

    /// Run file to write.
    #[arg(long, value_name = "FILE", required_unless_present = "show_prompt")]
    out: Option<PathBuf>,

    /// Report to write, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Which model is asked, and how it is reached.
#[derive(clap::Args)]
struct ModelArgs {
    /// Hugging Face directory of a Llama.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["endpoint", "show_prompt"], conflicts_with = "endpoint")]
    llm: Option<PathBuf>,

    /// Keep the Llama's weights in this [default: as in its files].
    #[arg(long, value_enum, conflicts_with = "endpoint")]
    precision: Option<Precision>,

    /// Ask the Llama without a chat template: it is no chat model.
    #[arg(long, conflicts_with = "endpoint")]
    plain: bool,

    /// Most tokens that go through the Llama together.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Batching::default().tokens,
        value_parser = at_least_one(),
        conflicts_with = "endpoint"
    )]
    batch_tokens: usize,

    /// Where the Llama computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t, conflicts_with = "endpoint")]
    device: DeviceChoice,

    /// Base URL of a server with OpenAI's chat completions, such as http://localhost:8000/v1.
    #[arg(long, value_name = "URL", requires = "model")]
    endpoint: Option<String>,

    /// The model's name on that server.
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    model: Option<String>,

    /// Environment variable that holds the server's key, if it wants one.
    #[arg(long, value_name = "VARIABLE", default_value = "OPENAI_API_KEY", requires = "endpoint")]
    api_key_env: String,

    /// Questions that the server is asked at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = threads(), requires = "endpoint")]
    concurrency: usize,

    /// JSON object that is merged into each request, such as '{"reasoning_effort": "low"}'; null takes a field out.
    #[arg(long, value_name = "JSON", requires = "endpoint")]
    body: Option<String>,

    /// Further header of each request, such as 'X-Team: linking'; may be given again.
    #[arg(long = "header", value_name = "NAME: VALUE", requires = "endpoint")]
    headers: Vec<String>,

    /// Certificates (PEM) of the authorities by which the server is believed [default: SSL_CERT_FILE, else Mozilla's].
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    ca_file: Option<PathBuf>,

    /// Seconds that the server may take for an answer, a day at most.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 120,
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        requires = "endpoint"
    )]
    timeout: u64,

    /// Calls after one that failed, each after twice the wait of the one before.
    #[arg(long, value_name = "N", default_value_t = 6, requires = "endpoint")]
    retries: u32,
}

impl ModelArgs {
    /// The file of certificates that is to be believed, by the flag or by the variable that other programs go by.
    fn authorities(&self) -> Option<PathBuf> {
        let secure = self.endpoint.as_ref().is_some_and(|url| url.starts_with("https"));
        let variable =
            || std::env::var_os("SSL_CERT_FILE").filter(|path| secure && !path.is_empty()).map(PathBuf::from);
        self.ca_file.clone().or_else(variable)
    }

    /// How to ask the server, if one is asked. Read here and not by the parser of flags, whose errors repeat what was given,
    /// and that may be a secret.
    fn endpoint(&self) -> anyhow::Result<Option<EndpointSettings>> {
        let (Some(url), Some(model)) = (&self.endpoint, &self.model) else { return Ok(None) };
        Ok(Some(EndpointSettings {
            url: url.clone(),
            model: model.clone(),
            key: std::env::var(&self.api_key_env).ok().map(|key| key.trim().to_string()),
            concurrency: self.concurrency,
            timeout: Duration::from_secs(self.timeout),
            retries: self.retries,
            backoff: Duration::from_secs(1),
            body: self.body.as_deref().map(object).transpose()?.unwrap_or_default(),
            headers: self.headers.iter().map(|text| header(text)).collect::<anyhow::Result<_>>()?,
            authorities: self.authorities(),
        }))
    }

    /// Opens the model; says where it computes.
    fn open(&self, endpoint: Option<Endpoint>) -> anyhow::Result<(Box<dyn LanguageModel>, String)> {
        if let Some(endpoint) = endpoint {
            return Ok((Box::new(endpoint), "endpoint".into()));
        }
        let folder = self.llm.as_deref().unwrap_or(Path::new(""));
        let gpu = self.device.open(Arithmetic::default())?;
        let batching = Batching { tokens: self.batch_tokens, ..Batching::default() };
        let decoder = Decoder::open(folder, self.precision, gpu.as_ref(), self.plain, batching)?;
        Ok((Box::new(decoder), describe(gpu.as_ref())))
    }
}

/// Parses counts of threads that may wait for a server, each for an answer of its own.
fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=4096)
}

/// Parses a JSON object; it may hold a secret and is not repeated.
fn object(text: &str) -> anyhow::Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => anyhow::bail!("--body: is no JSON object; give one like '{{\"top_k\": 1}}'"),
        Err(e) => anyhow::bail!("--body: is no JSON: {e}"),
    }
}

/// Parses a header; it may be a secret and is not repeated.
fn header(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once(':').context("--header: has no colon; give one like 'X-Team: linking'")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

impl Args {
    /// Refuses names that meet, before anything starts: what is written must be none of what is read, and no two files
    /// that are written may be one. Nor may one of them be such that it cannot be written.
    fn check_files(&self, out: &Path, journal: Option<&Path>) -> anyhow::Result<()> {
        let authorities = self.model.authorities();
        let mut reads = vec![("--ranking", self.ranking.as_path()), ("--data", &self.data.data)];
        reads.extend(self.template.as_deref().map(|path| ("--template", path)));
        reads.extend(authorities.as_deref().map(|path| ("--ca-file", path)));
        reads.extend(self.model.llm.as_deref().map(|path| ("--llm", path)));
        let mut writes = vec![("--out", out)];
        writes.extend(journal.map(|path| ("--journal", path)));
        writes.extend(self.report.as_deref().map(|path| ("--report", path)));
        paths::keep_apart(&reads, &writes)?;
        if let Some(journal) = journal.filter(|journal| journal.exists()) {
            files::expect_regular(journal)?;
        }
        Ok(writes.iter().try_for_each(|(_, path)| files::expect_file_at(path))?)
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

    fn settings(&self) -> Settings {
        let default = if self.model.llm.is_some() { Scoring::Letters } else { Scoring::Generate };
        Settings {
            strategy: self.strategy,
            k: self.k,
            scoring: self.scoring.unwrap_or(default),
            max_new_tokens: self.max_new_tokens,
            gate: self.gate,
            debias: self.debias,
            seed: self.seed,
            budget: Budget { description_words: self.description_words, sentence_words: self.sentence_words },
            skip_refused: self.data.skip_bad,
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.settings();
    settings.check()?;
    let out = args.out.clone().unwrap_or_default();
    let journal = if args.show_prompt { None } else { args.journal(&out)? };
    if !args.show_prompt {
        args.check_files(&out, journal.as_deref())?;
    }
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
        let entities = first.candidates.iter().take(settings.k).map(|&c| &dataset.entities()[c as usize]);
        let prompt = template.render(&first.mention, &entities.collect::<Vec<_>>(), settings.budget)?;
        println!("{}\n---\n{}\n---\n{}", prompt.system, prompt.user, prompt.reply);
        return Ok(());
    }
    let (mut model, device) = args.model.open(endpoint)?;
    let header = Header::new(&*model, &settings, &template, &dataset, &run)?;
    let mut journal = journal.map(|path| Journal::open(&path, &header)).transpose()?;
    if let Some(journal) = journal.as_ref().filter(|journal| !journal.is_empty()) {
        eprintln!("going on with {} answers of {}", journal.len(), journal.path().display());
    }
    let bar = progress("mentions");
    let outcome = rerank(&rankings, &dataset, &template, &settings, &mut *model, journal.as_mut(), &bar)?;
    bar.finish_and_clear();
    write_run(&out, &dataset, &rankings, &outcome.reranked)?;
    let report = Report::new(model.identity(), &settings, &rankings, mentions.len(), &outcome);
    if let Some(path) = &args.report {
        let mut value = json!(report);
        value["protocol"] = json!(Protocol::of(rankings.iter().filter(|ranking| ranking.lacks_gold()).count()));
        value["provenance"] = json!(Provenance::new(device, dataset.checksum()?));
        write_json(path, &value)?;
    }
    print_report(&report);
    let reported = args.report.map(|path| format!(" and {}", path.display())).unwrap_or_default();
    let kept = journal.map(|journal| format!("; answers are kept in {}", journal.path().display()));
    println!("wrote {}{reported}{}", out.display(), kept.unwrap_or_default());
    Ok(())
}

fn print_report(report: &Report) {
    let (k, spent) = (report.settings.k, &report.spent);
    println!("{} mentions, the first {k} candidates of each; {}", report.mentions, report.model);
    if let Some(table) = reranking_table(report) {
        println!("{table}\n{}\n", report.note);
        println!("Ranks of the right entities before (rows) and after (columns):");
        println!("{}", rank_change_table(report));
        let changes = &report.changes;
        print!("{} better, {} worse, {} behind the first {k}", changes.improved, changes.degraded, changes.behind);
        println!(" ({} of them no candidate)", report.gold_missing);
    }
    if report.without_gold > 0 {
        println!("{} mentions have no gold entity: they are re-ranked and go into no metric", report.without_gold);
    }
    println!(
        "asked about {} mentions in {} calls ({} more in the journal): {} invalid answers, {} refused",
        report.asked(),
        spent.calls,
        spent.from_journal,
        report.invalid.len(),
        report.refused.len()
    );
    let first = |listed: &[Unanswered]| {
        listed.iter().take(SHOWN).for_each(|u| println!("  {}: {:?}", u.mention_id, excerpt(&u.answer)));
    };
    first(&report.invalid);
    first(&report.refused);
    if !report.unfinished.is_empty() {
        println!(
            "{} answers ended within the model's thoughts: raise --max-new-tokens, or switch its thinking off (--body)",
            report.unfinished.len()
        );
        first(&report.unfinished);
    }
    if !report.unsure.is_empty() {
        println!(
            "{} answers hardly begin with a letter, by their log-probabilities; --scoring generate reads them whole",
            report.unsure.len()
        );
        first(&report.unsure);
    }
    if report.settings.gate.is_some() {
        let right = report.sure_and_right.map(|s| format!("; of these, {:.1} % were right", 100.0 * s));
        println!("the gate saved {} calls{}", spent.calls_saved, right.unwrap_or_default());
    }
    if report.settings.debias.is_some() && report.letter_prior.is_none() {
        println!("nothing was debiased: no mention that was asked has {k} candidates and their letters' probabilities");
    }
    if let Some(prior) = &report.letter_prior {
        let shares: Vec<String> = prior
            .iter()
            .enumerate()
            .map(|(i, p)| format!("{} {:.1} %", char::from(b'A' + i as u8), 100.0 * p))
            .collect();
        println!("the model's preference for letters, divided out: {}", shares.join(", "));
    }
    println!(
        "{} tokens of prompts, {} of them computed and not shared; {} new tokens; {:.1} s ({:.1} calls/s)",
        spent.prompt_tokens,
        spent.computed_tokens,
        spent.new_tokens,
        spent.seconds,
        spent.calls as f64 / spent.seconds.max(1e-9)
    );
}
