//! A small CLIP with random weights, written as a Hugging Face directory: it stands in for a pretrained one where
//! none can be shipped. What it says about texts and images is a fixed random function of them, nothing learned.

use std::path::Path;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::Lowercase;
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, TokenizerBuilder};

use super::config::{ClipConfig, TextConfig, VisionConfig};
use super::parameters::parameters;
use crate::encoder::trained::{Parameter, Role, Tower};
use crate::error::{Error, Result};
use crate::files;
use crate::random::{Purpose, generator, uniform};
use crate::tensor::Tensor;
use crate::tensor::safetensors::Writer;
use crate::tokenizer::{failed, learned};

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const UNKNOWN: &str = "<|unknown|>";

/// The number of [`END`].
pub(super) const END_NUMBER: u32 = 1;

/// Waves across a patch, at most, in the filters of the patch embedding.
const WAVES: f32 = 0.5;

/// How much the text tower's blocks add to a token. An untrained block mixes words at random; kept small, it leaves
/// a token's state near its word's.
const TEXT_MIXING: f32 = 0.1;

/// Sizes of a random CLIP.
#[derive(Clone, Copy, Debug)]
pub struct RandomClip {
    /// Width of the text tower, a multiple of 32.
    pub text_width: usize,
    /// Width of the vision tower, a multiple of 32.
    pub vision_width: usize,
    /// Width of the global vectors.
    pub projection: usize,
    /// Blocks of each tower.
    pub layers: usize,
    /// Width and height of the images.
    pub image_size: usize,
    /// Width and height of a patch.
    pub patch_size: usize,
    /// Most words and parts of words.
    pub vocabulary: usize,
    /// Draws the weights.
    pub seed: u64,
}

impl RandomClip {
    fn config(&self, vocab_size: usize) -> ClipConfig {
        let (text, vision) = (self.text_width, self.vision_width);
        ClipConfig {
            model_type: "clip".into(),
            projection_dim: self.projection,
            text_config: TextConfig {
                vocab_size,
                hidden_size: text,
                intermediate_size: 2 * text,
                num_hidden_layers: self.layers,
                num_attention_heads: text / 32,
                eos_token_id: END_NUMBER,
                ..TextConfig::default()
            },
            vision_config: VisionConfig {
                hidden_size: vision,
                intermediate_size: 2 * vision,
                num_hidden_layers: self.layers,
                num_attention_heads: vision / 32,
                image_size: self.image_size,
                patch_size: self.patch_size,
                ..VisionConfig::default()
            },
        }
    }
}

/// Writes the directory. The tokenizer's words are learned from `texts`.
pub fn write_random<'a>(folder: &Path, clip: RandomClip, texts: impl Iterator<Item = &'a str> + Send) -> Result<()> {
    let tokenizer = train_tokenizer(texts, clip.vocabulary)?;
    let config = clip.config(tokenizer.1);
    let write = |name: &str, text: String| files::write_whole(&folder.join(name), |out| writeln!(out, "{text}"));
    write("tokenizer.json", tokenizer.0)?;
    write("preprocessor_config.json", pretty(&preprocessor(clip.image_size))?)?;
    let tensors = weights(&config, clip.seed);
    let mut writer = Writer::default();
    tensors.iter().for_each(|(name, tensor)| {
        writer.tensor(name, tensor);
    });
    writer.write(&folder.join("model.safetensors"))?;
    // Last, so that a directory that was cut short has no configuration.
    write("config.json", pretty(&serde_json::to_value(&config).map_err(|e| Error::invalid(e.to_string()))?)?)
}

/// How CLIP prepares images of this size.
pub(super) fn preprocessor(size: usize) -> serde_json::Value {
    json!({
        "do_resize": true, "size": {"shortest_edge": size}, "resample": 3,
        "do_center_crop": true, "crop_size": {"height": size, "width": size},
        "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "CLIPImageProcessor",
    })
}

pub(super) fn pretty(value: &serde_json::Value) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::invalid(e.to_string()))
}

/// `tokenizer.json` and the number of its tokens, of which the end of a text is [`END_NUMBER`].
pub(super) fn train_tokenizer<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocabulary: usize,
) -> Result<(String, usize)> {
    // Without CLIP's suffix for the ends of words: the trainer numbers suffixed letters in an order that changes from run
    // to run, and with the numbers everything would.
    let model = BPE::builder().unk_token(UNKNOWN.into()).build();
    let template = TemplateProcessing::builder()
        .try_single(format!("{START} $A {END}"))
        .map_err(|e| failed(&e))?
        .special_tokens(vec![(START, 0), (END, END_NUMBER)])
        .build()
        .map_err(|e| failed(&e))?;
    let tokenizer = TokenizerBuilder::new()
        .with_model(model.map_err(|e| failed(&e))?)
        .with_normalizer(Some(Lowercase))
        .with_pre_tokenizer(Some(Whitespace {}))
        .with_post_processor(Some(template))
        .with_decoder(None::<tokenizers::DecoderWrapper>)
        .build()
        .map_err(|e| failed(&e))?;
    let special = [START, END, UNKNOWN].map(|token| AddedToken::from(token, true)).to_vec();
    let trainer = BpeTrainerBuilder::new().vocab_size(vocabulary).special_tokens(special).show_progress(false).build();
    let tokenizer = learned(tokenizer, trainer, texts.map(in_short_words).collect())?;
    Ok((tokenizer.to_string(false).map_err(|e| failed(&e))?, tokenizer.get_vocab_size(true)))
}

/// A text whose longest words are cut into pieces: what is learned from a word takes the square of its length.
fn in_short_words(text: &str) -> String {
    const LONGEST: usize = 256;
    let mut cut = String::with_capacity(text.len());
    let mut length = 0;
    for character in text.chars() {
        length = if character.is_whitespace() { 0 } else { length + 1 };
        if length > LONGEST {
            cut.push(' ');
            length = 1;
        }
        cut.push(character);
    }
    cut
}

/// Names and random values of all tensors.
fn weights(config: &ClipConfig, seed: u64) -> Vec<(String, Tensor)> {
    let draw = |(index, parameter): (usize, Parameter)| {
        let mut rng = generator(seed, Purpose::Demo, index as u64);
        let mut tensor = Tensor::zeros(&parameter.shape[..]);
        let values = tensor.data_mut();
        // A weight that gives its outputs `scale` times the deviation of its inputs.
        let scaled = |scale: f32| scale / (parameter.shape.last().map_or(1.0, |&inputs| inputs as f32)).sqrt();
        match parameter.role {
            Role::Norm => values.fill(1.0),
            Role::Bias | Role::Types | Role::Statistics | Role::LogScale => {}
            Role::Filters => filters(values, config.vision_config.patch_size, &mut rng),
            Role::Tokens => uniform(values, 1.0, &mut rng),
            Role::Positions | Role::Class => uniform(values, 0.1, &mut rng),
            Role::Query | Role::Key | Role::Value | Role::Up | Role::Projection => {
                uniform(values, scaled(1.0), &mut rng)
            }
            Role::AttentionOut | Role::Down => {
                let mixing = if parameter.tower == Tower::Text { TEXT_MIXING } else { 1.0 };
                uniform(values, scaled(mixing), &mut rng);
            }
        }
        (parameter.name, tensor)
    };
    parameters(config).into_iter().enumerate().map(draw).collect()
}

/// Patch filters of random colour and low spatial frequency: what they say changes little when a picture moves by a
/// pixel, which cannot be said of white noise.
fn filters(values: &mut [f32], patch: usize, rng: &mut ChaCha8Rng) {
    for filter in values.chunks_exact_mut(3 * patch * patch) {
        let colour = [0; 3].map(|_| rng.random_range(-1.0..1.0f32));
        let [u, v] = [0; 2].map(|_| rng.random_range(-WAVES..WAVES));
        let phase = rng.random_range(0.0..std::f32::consts::TAU);
        for (i, weight) in filter.iter_mut().enumerate() {
            let (y, x) = (i / patch % patch, i % patch);
            let wave = (std::f32::consts::TAU * (u * y as f32 + v * x as f32) / patch as f32 + phase).cos();
            *weight = colour[i / (patch * patch)] * wave * 2.0 / patch as f32;
        }
    }
}
