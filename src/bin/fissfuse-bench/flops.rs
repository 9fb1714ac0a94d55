//! What a training step spends.

use std::path::PathBuf;

use fissfuse::autograd::Cost;
use fissfuse::encoder::clip::ClipConfig;
use fissfuse::profile::flops::{EncoderCost, StepCost, training_step};
use fissfuse::profile::synthetic::Shape;
use fissfuse::report::table;
use serde_json::json;

use super::machine;
use super::print_json;
use super::work::WorkArgs;

/// FLOPs, bytes and parameters of a training step by operation, as executed and as a textbook would spend them.
///
/// A textbook implementation pads every sequence, forms keys and values of every pair, and computes each candidate of
/// each mention anew.
#[derive(clap::Args)]
pub struct FlopsArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Hugging Face directory whose config.json gives the encoder's sizes [default: those of CLIP ViT-B/32].
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
}

pub fn flops(args: FlopsArgs, json: bool) -> anyhow::Result<()> {
    let (shape, config) = (args.work.shape()?, args.work.config());
    let step = training_step(config, shape, args.work.seed)?;
    let clip = match &args.encoder {
        Some(folder) => ClipConfig::read(folder)?,
        None => ClipConfig { projection_dim: 512, ..ClipConfig::default() },
    };
    let encoders = EncoderCost::per_sample(&clip, &shape)?;
    if json {
        return print_json(&json!({"machine": machine(None), "step": step, "encoders_per_sample": encoders}));
    }
    print_flops(&step, &encoders);
    Ok(())
}

fn print_flops(step: &StepCost, encoders: &EncoderCost) {
    let Shape { mentions, candidates, mean_tokens, max_tokens, patches } = step.shape;
    println!("A training step of {mentions} mentions x {candidates} candidates, {} parameters;", step.parameters);
    println!("texts of {mean_tokens} tokens in the mean and {max_tokens} at most, images of {patches} patches;");
    println!("{:.1} MB of features as f16, which each pass must load.\n", step.feature_bytes as f64 / 1e6);
    let million = |flops: u64| format!("{:.2}", flops as f64 / mentions as f64 / 1e6);
    let row = |name: &str, calls: String, cost: &Cost| {
        let ratio = cost.textbook() as f64 / cost.flops().max(1) as f64;
        let bytes = cost.forward_bytes + cost.backward_bytes;
        let [forward, backward] = [cost.forward, cost.backward].map(million);
        let [all, tiles, textbook, bytes] = [cost.flops(), cost.tiles(), cost.textbook(), bytes].map(million);
        vec![name.to_string(), calls, forward, backward, all, tiles, textbook, format!("{ratio:.1}"), bytes]
    };
    let rows = step.ops.iter().map(|op| row(op.op, op.calls.to_string(), &op.cost));
    let header = [
        "per sample",
        "calls",
        "forward MFLOP",
        "backward",
        "both",
        "on tensor cores, padded",
        "textbook",
        "ratio",
        "least MB moved",
    ];
    let total = row("all", String::new(), &step.total);
    println!("{}\n", table(&header, rows.chain([total])));
    let encoded = encoders.text + encoders.image;
    let textbook = encoders.textbook_text + encoders.image;
    let with = |flops: u64, encoders: u64| million(flops + encoders * mentions as u64);
    let (executed, spent) = (step.total.flops(), step.total.textbook());
    let per_sample = |flops: u64| million(flops * mentions as u64);
    let prepared =
        step.prepared.map(|flops| ("inference, all prepared", per_sample(flops), million(step.total.textbook_forward)));
    let rows = [
        ("encoder, texts", per_sample(encoders.text), per_sample(encoders.textbook_text)),
        ("encoder, images", per_sample(encoders.image), per_sample(encoders.image)),
        ("training, features cached", million(executed), million(spent)),
        ("training with encoders", with(executed, encoded), with(spent, textbook)),
        ("inference, nothing prepared", million(step.total.forward), million(step.total.textbook_forward)),
        ("inference with encoders", with(step.total.forward, encoded), with(step.total.textbook_forward, textbook)),
    ];
    let rows = rows.into_iter().chain(prepared);
    let rows = rows.map(|(name, executed, textbook)| vec![name.to_string(), executed, textbook]);
    println!("{}", table(&["MFLOP per sample", "executed", "textbook"], rows));
}
