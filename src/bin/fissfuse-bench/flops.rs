//! What a training step spends.

use std::path::PathBuf;

use fissfuse::autograd::Cost;
use fissfuse::encoder::clip::ClipConfig;
use fissfuse::profile::flops::{EncoderCost, training_step};
use fissfuse::profile::measurement::Measurement;
use serde_json::{Map, Value};

use super::session::Session;
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

pub fn flops(args: FlopsArgs, session: &mut Session) -> anyhow::Result<()> {
    session.begin("flops", None)?;
    args.work.set(session);
    let clip = match &args.encoder {
        Some(folder) => ClipConfig::read(folder)?,
        None => ClipConfig { projection_dim: 512, ..ClipConfig::default() },
    };
    for row in args.work.rows()? {
        let step = training_step(row.config, row.shape, args.work.seed)?;
        let of = |name: &str, cost: &Cost, parameters: &Map<String, Value>| {
            let bytes = cost.forward_bytes + cost.backward_bytes;
            let figures = [
                ("executed_flops", cost.flops()),
                ("tensor_flops", cost.tiles()),
                ("textbook_flops", cost.textbook()),
                ("bytes", bytes),
            ];
            let row = Measurement::new(name, parameters.clone());
            figures.into_iter().fold(row, |row, (name, figure)| row.with(name, figure as f64))
        };
        for op in &step.ops {
            session.push(of(op.op, &op.cost, &row.parameters).with("calls", op.calls as f64));
        }
        session.push(of("all", &step.total, &row.parameters).with("parameters", step.parameters as f64));
        let encoders = EncoderCost::per_sample(&clip, &row.shape)?;
        let texts = Measurement::new("encoder, texts of a sample", row.parameters.clone());
        let texts = texts.with("executed_flops", encoders.text as f64);
        session.push(texts.with("textbook_flops", encoders.textbook_text as f64));
        let images = Measurement::new("encoder, images of a sample", row.parameters);
        session.push(images.with("executed_flops", encoders.image as f64));
    }
    Ok(())
}
