//! A Hugging Face directory as a GGUF file.

use std::path::Path;

use super::super::calibration::Calibration;
use super::super::checkpoint::Checkpoint;
use super::super::config::Family;
use super::super::{LlamaConfig, Precision, RopeScaling, Source, chat, layout};
use super::{FREQUENCIES, name, vocabulary};
use crate::error::{Error, Result};
use crate::tensor::gguf::{Planned, Setting, write};
use crate::tensor::{BlockType, Matrix, Values};

/// What a file says its weights mostly are, by llama.cpp's numbers.
fn file_type(precision: Precision) -> Option<u32> {
    match precision {
        Precision::F32 => Some(0),
        Precision::F16 => Some(1),
        Precision::Blocks(BlockType::Q4_0) => Some(2),
        Precision::Blocks(BlockType::Q8_0) => Some(7),
        // Those that are mixed as llama.cpp's "medium" ones are.
        Precision::Blocks(BlockType::Q4K) => Some(15),
        Precision::Blocks(BlockType::Q5K) => Some(17),
        Precision::Blocks(BlockType::Q6K) => Some(18),
        Precision::Bf16 => Some(32),
        _ => None,
    }
}

/// Writes the model of `folder` to the file `out`, whole or not at all: its weights in f32, f16, bf16 or in
/// blocks, mixed as `checkpoint/mixture.rs` and a calibration say; norms and biases in f32; its tokenizer and chat template. `on_layer`
/// hears of each tensor (done, all).
///
/// Fails if the precision has no place in such a file, or if its tokenizer would cut texts otherwise.
pub fn export(
    folder: &Path,
    out: &Path,
    precision: Precision,
    calibration: Option<Calibration>,
    on_layer: impl Fn(usize, usize),
) -> Result<()> {
    let Some(number) = file_type(precision) else {
        return Err(Error::invalid(format!("{precision} has no place in a GGUF file; q8_0 and q4_k are like it")));
    };
    let mut checkpoint = Checkpoint::open(&Source::Folder(folder.into()), Some(precision))?;
    if let Some(calibration) = calibration {
        checkpoint = checkpoint.calibrated(calibration)?;
    }
    let config = checkpoint.config();
    let family = if config.qkv_bias { Family::Qwen2 } else { Family::Llama };
    let mut settings = sizes(config, family);
    let title = folder.file_name().map_or("a model".into(), |name| name.to_string_lossy().into_owned());
    settings.push(("general.name".into(), Setting::Text(title)));
    settings.push(("general.file_type".into(), Setting::Size(number)));
    if matches!(precision, Precision::Blocks(_)) {
        settings.push(("general.quantization_version".into(), Setting::Size(2)));
    }
    settings.extend(vocabulary::settings(folder, config.vocab_size)?);
    if let Some(found) = chat::found(folder)? {
        settings.push(("tokenizer.chat_template".into(), Setting::Text(found.text)));
    }
    let vector = |name: String, len: usize| Planned { name, shape: vec![len], precision: Precision::F32 };
    // What each tensor of the file is made of.
    let (mut layers, mut planned) = (Vec::new(), Vec::new());
    for layer in layout::matrices(config) {
        let shape = layout::matrix_shape(config, &layer).unwrap_or_default().to_vec();
        let precision = checkpoint.precision_of(&layer)?;
        planned.push(Planned { name: name(&layer), shape, precision });
        layers.push(layer);
    }
    for layer in layout::vectors(config) {
        planned.push(vector(name(&layer), layout::vector_len(config, &layer)));
        layers.push(layer);
    }
    let divisors = divisors(config);
    expect_readable(folder, config)?;
    if let Some(divisors) = &divisors {
        planned.push(vector(FREQUENCIES.into(), divisors.len()));
    }
    write(out, &settings, &planned, |tensor| {
        let at = planned.iter().position(|other| other.name == tensor.name).unwrap_or(0);
        on_layer(at + 1, planned.len());
        let column = |values: Vec<f32>| Matrix::new(1, values.len(), Values::F32(values.into()));
        match (layers.get(at), &divisors) {
            (Some(layer), _) if tensor.shape.len() == 2 => turned(checkpoint.matrix(layer)?, layer, config, family),
            (Some(layer), _) => column(checkpoint.vector(layer)?.data().to_vec()),
            (None, Some(divisors)) => column(divisors.clone()),
            (None, None) => Err(Error::tensor(out, &tensor.name, "is not of this model")),
        }
    })
}

/// Rows of a Llama's queries and keys in the order of the original's: what [`super::InGguf`] undoes.
fn turned(weight: Matrix, layer: &str, config: &LlamaConfig, family: Family) -> Result<Matrix> {
    if family != Family::Llama || !(layer.ends_with(".q_proj") || layer.ends_with(".k_proj")) {
        return Ok(weight);
    }
    let (width, half) = (config.head_dim, config.head_dim / 2);
    weight.reordered(|row| {
        let (head, within) = (row / width, row % width);
        head * width + within % 2 * half + within / 2
    })
}

fn sizes(config: &LlamaConfig, family: Family) -> Vec<(String, Setting)> {
    let key = |name: &str| format!("{}.{name}", family.name());
    let mut settings = vec![("general.architecture".into(), Setting::Text(family.name().into()))];
    let sizes = [
        ("vocab_size", config.vocab_size),
        ("context_length", config.context),
        ("embedding_length", config.hidden_size),
        ("block_count", config.layers),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ];
    let size = |size: usize| Setting::Size(u32::try_from(size).unwrap_or(u32::MAX));
    settings.extend(sizes.map(|(name, value)| (key(name), size(value))));
    settings.push((key("attention.layer_norm_rms_epsilon"), Setting::Number(config.rms_norm_eps)));
    settings.push((key("rope.freq_base"), Setting::Number(config.rope.theta)));
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        settings.push((key("rope.scaling.type"), Setting::Text("linear".into())));
        settings.push((key("rope.scaling.factor"), Setting::Number(factor)));
    }
    settings
}

/// Fails for frequencies that this program could not read back: a file says by what each is divided, not why.
fn expect_readable(folder: &Path, config: &LlamaConfig) -> Result<()> {
    let RopeScaling::Llama3 { low_freq_factor, high_freq_factor, original_context, .. } = config.rope.scaling else {
        return Ok(());
    };
    if (low_freq_factor, high_freq_factor, original_context) == (1.0, 4.0, 8192.0) {
        return Ok(());
    }
    let reason = "scales its rotary frequencies by `low_freq_factor`, `high_freq_factor` and \
                  `original_max_position_embeddings` that are not Llama 3.1's (1, 4 and 8192): a GGUF file says none of them";
    Err(Error::file(folder.join("config.json"), reason))
}

/// What Llama 3.1 divides the rotary frequencies by (head_dim / 2).
fn divisors(config: &LlamaConfig) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 { .. } = config.rope.scaling else { return None };
    let plain = super::super::Rope { theta: config.rope.theta, scaling: RopeScaling::None };
    let both = plain.frequencies(config.head_dim).into_iter().zip(config.rope.frequencies(config.head_dim));
    Some(both.map(|(plain, scaled)| plain / scaled).collect())
}
