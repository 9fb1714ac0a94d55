//! Whole models with random weights on a device against the CPU: a Llama and a CLIP.

use std::time::{Duration, Instant};

use rand::Rng;
use tempfile::TempDir;

use crate::device::Gpu;
use crate::device::cpu::choose;
use crate::device::cuda::Arithmetic;
use crate::encoder::clip::{self, RandomClip};
use crate::encoder::{self, Compute, Encoded, ImageEncoder, TextEncoder};
use crate::error::{Error, Result};
use crate::llama::{self, Llama, LlamaConfig, Preset, Sampler, Sampling, Sequence, Wanted};
use crate::random::{Purpose, generator};

/// f32 sums in another order through some layers.
const F32: f32 = 1e-4;

/// Activations and operands of 8 bits on both sides, rounded at places of their own: a few halves of 2^-8.
const BF16: f32 = 2e-2;

/// Tokens of the Llama's prompt and new ones: more than a tile of queries, and onto another page of keys and values.
const PROMPT: usize = 75;
const NEW: usize = 60;

/// Texts and images that go through CLIP together.
const ENCODED: usize = 5;

/// How a model on a device compares with the same on the CPU.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The model and what was asked of it.
    pub name: String,
    /// Largest difference of its outputs, relative to the largest of them; of chosen tokens, the share that differs.
    pub error: f32,
    /// The largest error that rounding explains.
    pub bound: f32,
    /// Time on the device.
    pub time: Duration,
}

impl Comparison {
    /// Whether the error is what rounding makes. A NaN is none.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

fn folder() -> Result<TempDir> {
    tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create"))
}

/// Largest difference relative to the largest value wanted; infinite if one is no number.
fn error(got: &[f32], want: &[f32]) -> f32 {
    let largest = want.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let pairs = got.iter().zip(want);
    let worst =
        pairs.fold(0.0, |max: f32, (g, w)| if (g - w).is_nan() { f32::INFINITY } else { max.max((g - w).abs()) });
    if got.len() == want.len() { worst / largest } else { f32::INFINITY }
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let done = work()?;
    Ok((done, start.elapsed()))
}

/// A small Llama in the precisions that a device's arithmetic computes in: all logits of a prompt, the logits of tokens that
/// follow it one by one, and the tokens that the device chooses, which must be those that the host chooses by the device's logits.
pub fn compare_llama(gpu: &Gpu) -> Result<Vec<Comparison>> {
    let (precisions, bound) = match gpu.arithmetic() {
        Arithmetic::F32 => (&[llama::Precision::F32][..], F32),
        Arithmetic::Mixed => (&[llama::Precision::Bf16, llama::Precision::Int8][..], BF16),
    };
    let config = LlamaConfig {
        vocab_size: 5001,
        hidden_size: 256,
        intermediate_size: 704,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        ..Preset::Tiny.config()
    };
    let folder = folder()?;
    llama::write_random(folder.path(), &config, llama::Precision::F32, 7, ["a word"].into_iter())?;
    let ids: Vec<u32> = (0..PROMPT + NEW).map(|i| (i * 37 % config.vocab_size) as u32).collect();
    let mut compared = Vec::new();
    for &precision in precisions {
        let open = |gpu| Llama::open(folder.path(), Some(precision), gpu);
        let (device, host) = (open(Some(gpu))?, open(None)?);
        let (got, prefill) = timed(|| device.logits(&ids[..PROMPT]))?;
        let prefill_error = error(got.data(), host.logits(&ids[..PROMPT])?.data());
        let (got, steps) = timed(|| one_by_one(&device, &ids))?;
        let steps_error = error(&got, &one_by_one(&host, &ids)?);
        let (chosen, drawn) = timed(|| {
            follow(&device, &ids[..PROMPT], |sequence, tokens, sampler| {
                let chosen = device.engine().choose(&mut [(sequence, tokens)], &[sampler.draw()])?;
                chosen.first().copied().ok_or_else(|| Error::shape("llama", "no token"))
            })
        })?;
        let want = follow(&device, &ids[..PROMPT], |sequence, tokens, sampler| {
            let logits = device.engine().forward(&mut [(sequence, tokens)], Wanted::Last)?;
            Ok(choose(&logits, sampler.draw()))
        })?;
        let differ = chosen.iter().zip(&want).filter(|(a, b)| a != b).count() as f32 / NEW as f32;
        compared.extend(
            [
                ("prefill", prefill_error, bound, prefill),
                ("decode", steps_error, bound, steps),
                ("sampling", differ, 0.0, drawn),
            ]
            .map(|(what, error, bound, time)| Comparison {
                name: format!("Llama, {precision}, {what}"),
                error,
                bound,
                time,
            }),
        );
    }
    Ok(compared)
}

/// Logits after the prompt and after each token that follows it.
fn one_by_one(llama: &Llama, ids: &[u32]) -> Result<Vec<f32>> {
    let engine = llama.engine();
    let mut sequence = engine.sequence(None, ids.len())?;
    let (prompt, new) = ids.split_at(PROMPT);
    let mut logits = engine.forward(&mut [(&mut sequence, prompt)], Wanted::Last)?;
    for token in new.chunks_exact(1) {
        logits.extend(engine.forward(&mut [(&mut sequence, token)], Wanted::Last)?);
    }
    Ok(logits)
}

/// Tokens that follow a prompt, of which `next` gives each after those before.
fn follow(
    llama: &Llama,
    prompt: &[u32],
    next: impl Fn(&mut Sequence, &[u32], &mut Sampler) -> Result<u32>,
) -> Result<Vec<u32>> {
    let mut sequence = llama.engine().sequence(None, PROMPT + NEW)?;
    let mut sampler = Sampler::new(Sampling { temperature: 0.9, top_p: 0.9, seed: 1 }, 0);
    let mut tokens = vec![next(&mut sequence, prompt, &mut sampler)?];
    while tokens.len() < NEW {
        let last = tokens[tokens.len() - 1];
        tokens.push(next(&mut sequence, &[last], &mut sampler)?);
    }
    Ok(tokens)
}

/// A small CLIP in the precision that a device's arithmetic computes in: states and global vectors of texts and of images.
pub fn compare_clip(gpu: &Gpu) -> Result<Vec<Comparison>> {
    let (precision, bound) = match gpu.arithmetic() {
        Arithmetic::F32 => (encoder::Precision::F32, F32),
        Arithmetic::Mixed => (encoder::Precision::Bf16, BF16),
    };
    let folder = folder()?;
    let clip = RandomClip {
        text_width: 64,
        vision_width: 96,
        projection: 64,
        layers: 2,
        image_size: 48,
        patch_size: 8,
        vocabulary: 300,
        seed: 7,
    };
    let texts = ["a word", "some more words in a sentence", "", "a", "the last word of all of these"];
    clip::write_random(folder.path(), clip, texts.into_iter())?;
    let compute = |gpu: Option<&Gpu>| Compute { precision, gpu: gpu.cloned() };
    let (device, host) = (compute(Some(gpu)), compute(None));
    let open = |compute: &Compute| TextEncoder::open(folder.path(), compute);
    let (device_text, host_text) = (open(&device)?, open(&host)?);
    let (got, time) = timed(|| device_text.encode_texts(&texts, 16))?;
    let of_texts = (got, host_text.encode_texts(&texts, 16)?, time);
    let open = |compute: &Compute| ImageEncoder::open(folder.path(), compute);
    let (device_image, host_image) = (open(&device)?, open(&host)?);
    let mut rng = generator(0, Purpose::Benchmark, 4);
    let size = 3 * clip.image_size * clip.image_size;
    let images: Vec<Vec<f32>> =
        (0..ENCODED).map(|_| (0..size).map(|_| rng.random_range(-2.0..2.0)).collect()).collect();
    let (got, time) = timed(|| device_image.encode_images(&images))?;
    let of_images = (got, host_image.encode_images(&images)?, time);
    let of = |what: &str, (got, want, time): (Vec<Encoded>, Vec<Encoded>, Duration)| {
        let worst = |part: fn(&Encoded) -> &[f32]| {
            let [got, want] = [&got, &want].map(|all| all.iter().flat_map(part).copied().collect::<Vec<f32>>());
            error(&got, &want)
        };
        let error = worst(|encoded| &encoded.tokens).max(worst(|encoded| &encoded.global));
        Comparison { name: format!("CLIP, {precision}, {what}"), error, bound, time }
    };
    Ok(vec![of("texts", of_texts), of("images", of_images)])
}
