//! What a training step spends, and what models spend on a mention.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use fissfuse::autograd::Cost;
use fissfuse::encoder::clip::ClipConfig;
use fissfuse::llama::Preset as Llama;
use fissfuse::model::ModelConfig;
use fissfuse::profile::counts::Counts;
use fissfuse::profile::flops::{Backbone, Counted, EncoderCost, PUBLISHED, StepCost, models, training_step};
use fissfuse::profile::llama;
use fissfuse::profile::measurement::Measurement;
use serde_json::{Map, Value};

use super::kernels;
use super::session::Session;
use super::work::{ModelArgs, Row, WorkArgs};

/// Encoders of the features.
#[derive(Clone, Copy, ValueEnum)]
enum Encoders {
    /// CLIP ViT-B/32.
    Clip,
    /// bert-base-uncased and ResNet-101, the paper's B+R.
    BertResnet,
}

/// FLOPs, bytes and parameters of a training step by operation, as executed, padded, and as a textbook would spend them.
///
/// A textbook implementation pads every sequence, forms keys and values of every pair, and computes each candidate of
/// each mention anew. With --counts, what cusim counted of the same step stands beside all operations together, and what of
/// it no operation says; beside each one if the step named its ranges (`step --ranges`; docs/flops.md).
#[derive(clap::Args)]
pub struct FlopsArgs {
    #[command(flatten)]
    work: WorkArgs,

    #[command(flatten)]
    model: ModelArgs,

    /// Encoders of the features, whose widths and patches the model gets.
    #[arg(long, value_enum, default_value_t = Encoders::Clip, conflicts_with = "encoder")]
    backbone: Encoders,

    /// Hugging Face directory whose config.json gives the sizes of a CLIP [default: those of CLIP ViT-B/32].
    #[arg(long, value_name = "DIR")]
    pub encoder: Option<PathBuf>,

    /// Language model of KAR.
    #[arg(long, value_enum, value_name = "PRESET", default_value = "7b")]
    llm: Llama,

    /// Tokens of one of KAR's prompts.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = prompts())]
    prompt: usize,

    /// File of cusim's counts of one step of these sizes (CUSIM_COUNT).
    #[arg(long, value_name = "FILE", conflicts_with = "models")]
    pub counts: Option<PathBuf>,

    /// Instead, the paper's Fig. 11: one mention with ten candidates, of every model with each backbone.
    #[arg(long, conflicts_with_all = ["model", "ablation", "backbone", "encoder"])]
    models: bool,
}

/// Parses lengths of prompts, whose FLOPs can still be counted.
fn prompts() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1 << 20)
}

pub fn flops(args: FlopsArgs, session: &mut Session) -> anyhow::Result<()> {
    session.expect_no_runs("flops counts, and times nothing")?;
    session.begin("flops", None)?;
    if args.models {
        return figure(session);
    }
    args.work.set(session);
    let backbone = match (&args.encoder, args.backbone) {
        (Some(folder), _) => Backbone::Clip(Box::new(ClipConfig::read(folder)?)),
        (None, Encoders::Clip) => Backbone::clip(),
        (None, Encoders::BertResnet) => Backbone::bert_resnet(),
    };
    let counts = args.counts.as_deref().map(kernels::read).transpose()?;
    let rows = args.work.rows()?;
    anyhow::ensure!(counts.is_none() || rows.len() == 1, "--counts is of one step: give one value of each size");
    session.set("backbone", backbone.name());
    session.set("llm", args.llm.to_possible_value().map_or(String::new(), |value| value.get_name().into()));
    session.set("prompt", args.prompt);
    args.model.set(session);
    for Row { mut shape, config, mut parameters } in rows {
        if args.work.patches.is_none() && matches!(backbone, Backbone::BertResNet(..)) {
            shape.patches = backbone.patches();
            parameters.insert("patches".into(), shape.patches.into());
        }
        // A CLIP that is named gives its sizes to the encoders alone: the features' stay those of the step that was asked for.
        let widths = if args.encoder.is_some() { config.widths } else { backbone.widths() };
        let config = args.model.config(ModelConfig { widths, ..config })?;
        let step = training_step(config, shape, args.work.seed)?;
        push_step(session, &step, &parameters, counts.as_ref());
        push_encoders(session, &backbone.per_sample(&shape)?, &parameters);
        let prompt = llama::prompt_cost(&args.llm.config(), args.prompt).forward;
        let kar = Measurement::new("KAR, a prompt", parameters).with("executed_flops", prompt as f64);
        session.push(kar.with("parameters", llama::parameters(&args.llm.config()) as f64));
    }
    Ok(())
}

fn row(name: &str, cost: &Cost, parameters: &Map<String, Value>) -> Measurement {
    let (bytes, account) = (cost.forward_bytes + cost.backward_bytes, cost.account());
    let figures = [
        ("executed_flops", account.executed),
        ("padding_of_d_flops", account.padding_d),
        ("padding_of_tiles_flops", account.padding_tiles),
        ("tensor_flops", account.tensor),
        ("textbook_flops", cost.textbook()),
        ("bytes", bytes),
    ];
    let row = Measurement::new(name, parameters.clone());
    let row = figures.into_iter().fold(row, |row, (name, figure)| row.with(name, figure as f64));
    row.with("flops_per_byte", account.executed as f64 / bytes as f64)
}

fn push_step(session: &mut Session, step: &StepCost, parameters: &Map<String, Value>, counts: Option<&Counts>) {
    let ops = || step.ops.iter().chain([&step.optimizer]);
    let counted = |ops: &[&'static str], cost: &Cost| Counted::of_operations(counts?, ops, cost);
    for op in ops() {
        let row = row(op.op, &op.cost, parameters).with("calls", op.calls as f64);
        session.push(with_counted(row, counted(&[op.op], &op.cost)).with("parameters", op.parameters as f64));
    }
    for stage in step.stages() {
        let row = row(&format!("stage {}", stage.op), &stage.cost, parameters).with("calls", stage.calls as f64);
        let theirs: Vec<&'static str> = ops().filter(|op| op.stage == stage.stage).map(|op| op.op).collect();
        session.push(with_counted(row, counted(&theirs, &stage.cost)).with("parameters", stage.parameters as f64));
    }
    if let Some(between) = counts.and_then(Counted::between_operations) {
        session.push(with_counted(Measurement::new("between operations", parameters.clone()), Some(between)));
    }
    let all = row("all", &step.step(), parameters);
    let counted = counts.map(|counts| Counted::all(counts, &step.step()));
    session.push(with_counted(all, counted).with("parameters", step.parameters as f64));
}

fn with_counted(row: Measurement, counted: Option<Counted>) -> Measurement {
    match counted {
        Some(Counted { flops, tensor, unattributed, unattributed_tensor }) => row
            .with("counted_flops", flops as f64)
            .with("counted_tensor_flops", tensor as f64)
            .with("unattributed_flops", unattributed as f64)
            .with("unattributed_tensor_flops", unattributed_tensor as f64),
        None => row,
    }
}

fn push_encoders(session: &mut Session, encoders: &EncoderCost, parameters: &Map<String, Value>) {
    let EncoderCost { text, textbook_text, image, text_parameters, image_parameters } = *encoders;
    for (name, executed, textbook, count) in [
        ("encoder, texts of a sample", text, textbook_text, text_parameters),
        ("encoder, images of a sample", image, image, image_parameters),
    ] {
        let row = Measurement::new(name, parameters.clone()).with("executed_flops", executed as f64);
        session.push(row.with("textbook_flops", textbook as f64).with("parameters", count as f64));
    }
}

/// Rows of the paper's Fig. 11.
fn figure(session: &mut Session) -> anyhow::Result<()> {
    let named = |backbone: &str, encoders: bool, source: &str| {
        let values = [("backbone", backbone.into()), ("encoders", encoders.into()), ("source", source.into())];
        values.into_iter().map(|(name, value): (&str, Value)| (name.to_string(), value)).collect::<Map<_, _>>()
    };
    for cost in models()? {
        for encoders in [false, true] {
            let of = |figure: u64, more: u64| (figure + if encoders { more } else { 0 }) as f64;
            let row = Measurement::new(cost.model, named(cost.backbone, encoders, "computed"));
            let row = row.with("flops", of(cost.flops, cost.encoder_flops));
            let row = row.with("textbook_flops", of(cost.textbook, cost.encoder_textbook));
            session.push(row.with("parameters", of(cost.parameters, cost.encoder_parameters)));
        }
    }
    for published in PUBLISHED {
        let row = Measurement::new(published.model, named("its own", true, published.source));
        let row = row.with("flops", published.flops.unwrap_or(f64::NAN));
        session.push(row.with("parameters", published.parameters.unwrap_or(f64::NAN)));
    }
    Ok(())
}
