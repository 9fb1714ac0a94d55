//! Whole models with random weights on a device against the CPU: a Llama and a CLIP.

use rand::Rng;
use tempfile::TempDir;

use super::{Check, Findings};
use crate::device::Gpu;
use crate::device::cuda::Arithmetic;
use crate::encoder::clip::{self, RandomClip};
use crate::encoder::{self, Compute, Encoded, ImageEncoder, TextEncoder};
use crate::error::{Error, Result};
use crate::llama::{self, Llama, LlamaConfig, Preset, Sampler, Sampling, Sequence, Wanted};
use crate::ops::sample::choose;
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

/// A small Llama and a small CLIP in the precisions that this arithmetic computes in.
pub fn checks(arithmetic: Arithmetic) -> Vec<Check> {
    let (decoders, encoder, bound) = match arithmetic {
        Arithmetic::F32 => (&[llama::Precision::F32][..], encoder::Precision::F32, F32),
        Arithmetic::Mixed | Arithmetic::Bf16 => {
            (&[llama::Precision::Bf16, llama::Precision::Int8][..], encoder::Precision::Bf16, BF16)
        }
    };
    let of_decoder = |&precision: &llama::Precision| {
        Check::new(format!("Llama, {precision}"), move |gpu, found| compare_llama(gpu, (precision, bound), found))
    };
    let mut checks: Vec<Check> = decoders.iter().map(of_decoder).collect();
    checks.push(Check::new(format!("CLIP, {encoder}"), move |gpu, found| compare_clip(gpu, (encoder, bound), found)));
    checks.into_iter().map(Check::once).collect()
}

fn folder() -> Result<TempDir> {
    tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create"))
}

/// All logits of a prompt, the logits of tokens that follow it one by one, and the tokens that the device chooses, which must
/// be those that the host chooses by the device's logits.
fn compare_llama(gpu: &Gpu, (precision, bound): (llama::Precision, f32), found: &mut Findings) -> Result<()> {
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
    let open = |gpu| Llama::open(folder.path(), Some(precision), gpu);
    let (device, host) = (open(Some(gpu))?, open(None)?);
    found.near("prefill", device.logits(&ids[..PROMPT])?.data(), host.logits(&ids[..PROMPT])?.data(), bound);
    found.near("decode", &one_by_one(&device, &ids)?, &one_by_one(&host, &ids)?, bound);
    let chosen = follow(&device, &ids[..PROMPT], |sequence, tokens, sampler| {
        let chosen = device.engine().choose(&mut [(sequence, tokens)], &[sampler.draw()])?;
        chosen.first().copied().ok_or_else(|| Error::shape("llama", "no token"))
    })?;
    let want = follow(&device, &ids[..PROMPT], |sequence, tokens, sampler| {
        let logits = device.engine().forward(&mut [(sequence, tokens)], Wanted::Last)?;
        Ok(choose(&logits, sampler.draw()))
    })?;
    found.equal("sampling", &chosen, &want);
    Ok(())
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

/// States and global vectors of texts and of images.
fn compare_clip(gpu: &Gpu, (precision, bound): (encoder::Precision, f32), found: &mut Findings) -> Result<()> {
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
    let devices = [Some(gpu), None].map(|gpu| Compute { precision, gpu: gpu.cloned() });
    let mut rng = generator(0, Purpose::Benchmark, 4);
    let size = 3 * clip.image_size * clip.image_size;
    let images: Vec<Vec<f32>> =
        (0..ENCODED).map(|_| (0..size).map(|_| rng.random_range(-2.0..2.0)).collect()).collect();
    let encode = |compute: &Compute| -> Result<[Vec<Encoded>; 2]> {
        let texts = TextEncoder::open(folder.path(), compute)?.encode_texts(&texts, 16)?;
        Ok([texts, ImageEncoder::open(folder.path(), compute)?.encode_images(&images)?])
    };
    let [got, want] = [encode(&devices[0])?, encode(&devices[1])?];
    for ((what, got), want) in ["texts", "images"].into_iter().zip(&got).zip(&want) {
        let states = [got, want].map(|all| all.iter().flat_map(|e| e.tokens.iter().copied()).collect::<Vec<f32>>());
        found.near(format!("states of {what}"), &states[0], &states[1], bound);
        let globals = [got, want].map(|all| all.iter().flat_map(|e| e.global.iter().copied()).collect::<Vec<f32>>());
        found.near(format!("global vectors of {what}"), &globals[0], &globals[1], bound);
    }
    Ok(())
}
