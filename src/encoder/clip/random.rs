//! A small CLIP with random weights, written as a Hugging Face directory: it stands in for a pretrained one where
//! none can be shipped. What it says about texts and images is a fixed random function of them, nothing learned.

use std::path::Path;

use rand::Rng;
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::Lowercase;
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, TokenizerBuilder};

use super::config::{ClipConfig, TextConfig, VisionConfig};
use crate::error::{Error, Result};
use crate::files;
use crate::random::{Purpose, generator};
use crate::tensor::Tensor;
use crate::tensor::safetensors::Writer;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const UNKNOWN: &str = "<|unknown|>";

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
                eos_token_id: 1,
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
    let size = clip.image_size;
    let processor = json!({
        "do_resize": true, "size": {"shortest_edge": size}, "resample": 3,
        "do_center_crop": true, "crop_size": {"height": size, "width": size},
        "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "CLIPImageProcessor",
    });
    write("preprocessor_config.json", pretty(&processor)?)?;
    let tensors = weights(&config, clip.seed);
    let mut writer = Writer::default();
    tensors.iter().for_each(|(name, tensor)| {
        writer.tensor(name, tensor);
    });
    writer.write(&folder.join("model.safetensors"))?;
    // Last, so that a directory that was cut short has no configuration.
    write("config.json", pretty(&serde_json::to_value(&config).map_err(|e| Error::invalid(e.to_string()))?)?)
}

fn pretty(value: &serde_json::Value) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Error::invalid(e.to_string()))
}

/// `tokenizer.json` and the number of its tokens.
fn train_tokenizer<'a>(texts: impl Iterator<Item = &'a str> + Send, vocabulary: usize) -> Result<(String, usize)> {
    let failed = |e: &dyn std::fmt::Display| Error::invalid(format!("training the tokenizer: {e}"));
    // Without CLIP's suffix for the ends of words: the trainer numbers suffixed letters in an order that changes from run
    // to run, and with the numbers everything would.
    let model = BPE::builder().unk_token(UNKNOWN.into()).build();
    let template = TemplateProcessing::builder()
        .try_single(format!("{START} $A {END}"))
        .map_err(|e| failed(&e))?
        .special_tokens(vec![(START, 0), (END, 1)])
        .build()
        .map_err(|e| failed(&e))?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model.map_err(|e| failed(&e))?)
        .with_normalizer(Some(Lowercase))
        .with_pre_tokenizer(Some(Whitespace {}))
        .with_post_processor(Some(template))
        .with_decoder(None::<tokenizers::DecoderWrapper>)
        .build()
        .map_err(|e| failed(&e))?;
    let special = [START, END, UNKNOWN].map(|token| AddedToken::from(token, true)).to_vec();
    let mut trainer =
        BpeTrainerBuilder::new().vocab_size(vocabulary).special_tokens(special).show_progress(false).build();
    tokenizer.train(&mut trainer, texts.map(str::to_string)).map_err(|e| failed(&e))?;
    Ok((tokenizer.to_string(false).map_err(|e| failed(&e))?, tokenizer.get_vocab_size(true)))
}

/// Names and random values of all tensors.
fn weights(config: &ClipConfig, seed: u64) -> Vec<(String, Tensor)> {
    let mut draw = Draw { seed, tensors: Vec::new() };
    let (text, vision) = (&config.text_config, &config.vision_config);
    let (t, v, p) = (text.hidden_size, vision.hidden_size, vision.patch_size);
    draw.uniform("text_model.embeddings.token_embedding.weight", &[text.vocab_size, t], 1.0);
    draw.uniform("text_model.embeddings.position_embedding.weight", &[text.max_position_embeddings, t], 0.1);
    (0..text.num_hidden_layers).for_each(|i| draw.block("text_model", i, t, text.intermediate_size, TEXT_MIXING));
    draw.norm("text_model.final_layer_norm", t);
    draw.linear("text_projection", config.projection_dim, t, false);
    draw.uniform("vision_model.embeddings.class_embedding", &[v], 0.1);
    draw.filters("vision_model.embeddings.patch_embedding.weight", v, p);
    draw.uniform("vision_model.embeddings.position_embedding.weight", &[vision.patches(), v], 0.1);
    draw.norm("vision_model.pre_layrnorm", v);
    (0..vision.num_hidden_layers).for_each(|i| draw.block("vision_model", i, v, vision.intermediate_size, 1.0));
    draw.norm("vision_model.post_layernorm", v);
    draw.linear("visual_projection", config.projection_dim, v, false);
    draw.tensors
}

struct Draw {
    seed: u64,
    tensors: Vec<(String, Tensor)>,
}

impl Draw {
    /// Uniform values of this standard deviation.
    fn uniform(&mut self, name: &str, shape: &[usize], deviation: f32) {
        let mut rng = generator(self.seed, Purpose::Demo, self.tensors.len() as u64);
        let bound = deviation * 3f32.sqrt();
        let mut tensor = Tensor::zeros(shape);
        tensor.data_mut().iter_mut().for_each(|x| *x = rng.random_range(-bound..bound));
        self.tensors.push((name.to_string(), tensor));
    }

    /// Patch filters of random colour and low spatial frequency: what they say changes little when a picture moves
    /// by a pixel, which cannot be said of white noise.
    fn filters(&mut self, name: &str, width: usize, patch: usize) {
        let mut rng = generator(self.seed, Purpose::Demo, self.tensors.len() as u64);
        let mut tensor = Tensor::zeros([width, 3, patch, patch]);
        for filter in tensor.data_mut().chunks_exact_mut(3 * patch * patch) {
            let colour = [0; 3].map(|_| rng.random_range(-1.0..1.0f32));
            let [u, v] = [0; 2].map(|_| rng.random_range(-WAVES..WAVES));
            let phase = rng.random_range(0.0..std::f32::consts::TAU);
            for (i, weight) in filter.iter_mut().enumerate() {
                let (y, x) = (i / patch % patch, i % patch);
                let wave = (std::f32::consts::TAU * (u * y as f32 + v * x as f32) / patch as f32 + phase).cos();
                *weight = colour[i / (patch * patch)] * wave * 2.0 / patch as f32;
            }
        }
        self.tensors.push((name.to_string(), tensor));
    }

    fn constant(&mut self, name: &str, width: usize, value: f32) {
        let mut tensor = Tensor::zeros([width]);
        tensor.data_mut().fill(value);
        self.tensors.push((name.to_string(), tensor));
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.constant(&format!("{name}.weight"), width, 1.0);
        self.constant(&format!("{name}.bias"), width, 0.0);
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) {
        self.scaled(name, outputs, inputs, 1.0);
        if bias {
            self.constant(&format!("{name}.bias"), outputs, 0.0);
        }
    }

    /// A weight that gives its outputs `scale` times the deviation of its inputs.
    fn scaled(&mut self, name: &str, outputs: usize, inputs: usize, scale: f32) {
        self.uniform(&format!("{name}.weight"), &[outputs, inputs], scale / (inputs as f32).sqrt());
    }

    /// A block; what its two halves add to each token's state is scaled by `mixing`.
    fn block(&mut self, tower: &str, index: usize, width: usize, inner: usize, mixing: f32) {
        let name = format!("{tower}.encoder.layers.{index}");
        self.norm(&format!("{name}.layer_norm1"), width);
        for layer in ["q_proj", "k_proj", "v_proj"] {
            self.linear(&format!("{name}.self_attn.{layer}"), width, width, true);
        }
        self.norm(&format!("{name}.layer_norm2"), width);
        self.linear(&format!("{name}.mlp.fc1"), inner, width, true);
        for (layer, inputs) in [("self_attn.out_proj", width), ("mlp.fc2", inner)] {
            let layer = format!("{name}.{layer}");
            self.scaled(&layer, width, inputs, mixing);
            self.constant(&format!("{layer}.bias"), width, 0.0);
        }
    }
}
