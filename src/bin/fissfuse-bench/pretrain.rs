//! A step of contrastive pre-training.

use std::path::PathBuf;

use anyhow::ensure;
use fissfuse::ops::AdamW;
use fissfuse::profile::contrastive::ContrastiveStep;
use fissfuse::profile::measurement::Measurement;
use fissfuse::profile::peak_memory;
use fissfuse::train::pretrain::PretrainConfig;

use super::room::expect_memory;
use super::session::Session;
use super::values::{Values, combinations, value};
use super::work::DeviceArgs;

/// configs/pretrain-vit-b-32.toml as it was when this program was built.
const CONFIG: &str = include_str!("../../../configs/pretrain-vit-b-32.toml");

/// Time of a step of contrastive pre-training: both towers forward and backward, and AdamW; by itself at CLIP ViT-B/32's sizes.
#[derive(clap::Args)]
pub struct PretrainArgs {
    /// Sizes and settings, a file of `fissfuse pretrain` [default: as configs/pretrain-vit-b-32.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Pairs of a step.
    #[arg(long, default_value = "64", value_name = "LIST")]
    pairs: Values,

    /// Tokens of each text.
    #[arg(long, default_value = "16", value_name = "LIST")]
    tokens: Values,

    /// Texts or images whose activations are kept at a time [default: as the configuration says].
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,

    /// Keep the input alone of each layer, and compute the layer again for its gradients.
    #[arg(long)]
    gradient_checkpointing: bool,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn pretrain(args: PretrainArgs, session: &mut Session) -> anyhow::Result<()> {
    let rows = combinations(&[("pairs", &args.pairs), ("tokens", &args.tokens)])?;
    let mut config: PretrainConfig = match &args.config {
        Some(path) => PretrainConfig::read(path)?,
        None => toml::from_str(CONFIG)?,
    };
    config.train.chunk = args.chunk.unwrap_or(config.train.chunk);
    config.train.gradient_checkpointing |= args.gradient_checkpointing;
    config.train.check()?;
    for row in &rows {
        let (pairs, tokens, most) = (value(row, "pairs"), value(row, "tokens"), config.model.max_tokens);
        ensure!(pairs >= 2, "--pairs {pairs}: the negatives of a pair are the others, so 2 at least");
        let image = config.model.image_size;
        expect_memory("--pairs", &[pairs, 3, image, image, 4])?;
        ensure!((1..=most).contains(&tokens), "--tokens {tokens}: the encoder takes 1 to {most}");
    }
    let gpu = args.device.open()?;
    session.begin("pretrain", gpu.as_ref())?;
    session.set("model", serde_json::to_value(&config.model)?);
    session.set("chunk", config.train.chunk);
    session.set("gradient_checkpointing", config.train.gradient_checkpointing);
    for row in rows {
        let (pairs, tokens) = (value(&row, "pairs"), value(&row, "tokens"));
        let mut step = ContrastiveStep::new(&config, pairs, tokens, gpu.clone())?;
        let cost = step.cost()?;
        let [forward, backward] = [cost.forward, cost.backward].map(|flops| flops as f64);
        let measured = session.measure("pre-training step", row, |_| step.run().map(drop))?;
        let measured = measured.with_rate("pairs", pairs as f64).with_rate("flops", forward + backward);
        let measured = measured.with("backward_over_forward", backward / forward);
        let measured = measured.with("tensor_flops", cost.tiles() as f64);
        let bytes = cost + AdamW::cost(step.parameters() as usize);
        // All gradients are read for their length before any of them can be used.
        let length = size_of::<f32>() as u64 * step.parameters();
        let measured = measured.with("least_bytes", (bytes.forward_bytes + bytes.backward_bytes + length) as f64);
        let measured = measured.with("parameters", step.parameters() as f64);
        // Of this process, so that rows after the largest one have the largest one's.
        let peaks = [("peak_bytes", peak_memory()), ("device_peak_bytes", gpu.as_ref().map(|gpu| gpu.peak() as u64))];
        let with = |measured: Measurement, (name, bytes): (&str, Option<u64>)| match bytes {
            Some(bytes) => measured.with(name, bytes as f64),
            None => measured,
        };
        session.push(peaks.into_iter().fold(measured, with));
    }
    Ok(())
}
