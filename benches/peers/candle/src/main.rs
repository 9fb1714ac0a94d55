//! candle's BERT and CLIP with the weights that transformers wrote, timed turn by turn as standard input asks.
//!
//! `candle-peer MODEL WEIGHTS INPUTS`: MODEL is `bert`, `clip-text` or `clip-image`, WEIGHTS a safetensors file, INPUTS another
//! that holds batches: `0.input_ids` and `0.attention_mask` (texts, tokens) in 64-bit integers, or `0.pixel_values`
//! (images, 3, 224, 224) in f32; then `1.…`, and so on. It speaks as `fissfuse-bench --turns` does: a line
//! `{"ready": ["bert", {"magnitude": x}]}`, where x is the mean magnitude of the first batch's output; to each line
//! `{"run": s}` it answers `{"seconds": [...]}`, the seconds of runs over all batches, of one and as many as fill s seconds;
//! `"next"` ends it.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::time::Instant;

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use candle_transformers::models::clip::{ClipConfig, ClipModel};
use serde::Deserialize;
use serde_json::{Value, json};

enum Model {
    Bert(BertModel),
    ClipText(ClipModel),
    ClipImage(ClipModel),
}

impl Model {
    fn open(name: &str, weights: &str) -> anyhow::Result<Model> {
        let weights = std::fs::read(weights).with_context(|| format!("{weights} cannot be read"))?;
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        let clip = |weights| ClipModel::new(weights, &ClipConfig::vit_base_patch32());
        Ok(match name {
            "bert" => Model::Bert(BertModel::load(weights, &Config::default())?),
            "clip-text" => Model::ClipText(clip(weights)?),
            "clip-image" => Model::ClipImage(clip(weights)?),
            _ => bail!("{name}: no such model; bert, clip-text, clip-image"),
        })
    }

    fn forward(&self, batch: &HashMap<String, Tensor>) -> anyhow::Result<Tensor> {
        let input = |name: &str| batch.get(name).with_context(|| format!("a batch lacks {name}"));
        Ok(match self {
            Model::Bert(model) => {
                let ids = input("input_ids")?;
                model.forward(ids, &ids.zeros_like()?, Some(input("attention_mask")?))?
            }
            Model::ClipText(model) => model.get_text_features(input("input_ids")?)?,
            Model::ClipImage(model) => model.get_image_features(input("pixel_values")?)?,
        })
    }
}

/// The batches of a file, whose tensors are named `NUMBER.INPUT`.
fn batches(path: &str) -> anyhow::Result<Vec<HashMap<String, Tensor>>> {
    let mut batches = Vec::new();
    for (name, tensor) in safetensors::load(path, &Device::Cpu)? {
        let (number, input) = name.split_once('.').with_context(|| format!("{path}: {name} is of no batch"))?;
        let number: usize = number.parse().with_context(|| format!("{path}: {name} is of no batch"))?;
        if batches.len() <= number {
            batches.resize_with(number + 1, HashMap::new);
        }
        batches[number].insert(input.to_string(), tensor);
    }
    Ok(batches)
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Asked {
    Run(f64),
    Next,
}

fn say(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, weights, inputs] = &arguments[..] else { bail!("needs MODEL WEIGHTS INPUTS") };
    let (model, batches) = (Model::open(name, weights)?, batches(inputs)?);
    let first = model.forward(batches.first().context("there are no batches")?)?;
    let magnitude = first.abs()?.mean_all()?.to_scalar::<f32>()?;
    say(&json!({"ready": [name, {"magnitude": magnitude}]}))?;
    for line in io::stdin().lock().lines() {
        let Asked::Run(least) = serde_json::from_str(&line?).context("standard input asks for no turn")? else { break };
        let mut turn = Vec::new();
        while turn.is_empty() || turn.iter().sum::<f64>() < least {
            let start = Instant::now();
            for batch in &batches {
                std::hint::black_box(model.forward(batch)?);
            }
            turn.push(start.elapsed().as_secs_f64());
        }
        say(&json!({"seconds": turn}))?;
    }
    Ok(())
}
