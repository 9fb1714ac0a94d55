//! What the work is, and where it is done.

use clap::ValueEnum;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::{DeviceChoice, Gpu};
use fissfuse::model::ModelConfig;
use fissfuse::profile::synthetic::Shape;

use super::at_least_one;

/// Sizes of a step in the paper.
#[derive(Clone, Copy, ValueEnum)]
pub enum Preset {
    /// 128 mentions of 10 candidates.
    Wikidiverse,
    /// 128 mentions of 100 candidates.
    Wikimel,
}

/// Sizes of the work and of the model.
#[derive(clap::Args)]
pub struct WorkArgs {
    /// Sizes of one of the paper's datasets; the flags below override them.
    #[arg(long, value_enum, default_value_t = Preset::Wikidiverse)]
    pub preset: Preset,

    /// Mentions of a step.
    #[arg(long, value_parser = at_least_one())]
    pub mentions: Option<usize>,

    /// Candidates of each mention.
    #[arg(long, value_parser = at_least_one())]
    pub candidates: Option<usize>,

    /// Mean length of a text in tokens.
    #[arg(long, value_parser = at_least_one())]
    pub mean_tokens: Option<usize>,

    /// Longest text in tokens, to which a textbook pads.
    #[arg(long, value_parser = at_least_one())]
    pub max_tokens: Option<usize>,

    /// Patches of an image.
    #[arg(long, value_parser = at_least_one())]
    pub patches: Option<usize>,

    /// Hidden width of the network.
    #[arg(long, default_value_t = 100)]
    pub d: usize,

    /// Cross-attention heads.
    #[arg(long, default_value_t = 1)]
    pub heads: usize,

    /// Draws features, weights and candidates.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl WorkArgs {
    pub fn shape(&self) -> anyhow::Result<Shape> {
        let preset = match self.preset {
            Preset::Wikidiverse => Shape::WIKIDIVERSE,
            Preset::Wikimel => Shape::WIKIMEL,
        };
        let shape = Shape {
            mentions: self.mentions.unwrap_or(preset.mentions),
            candidates: self.candidates.unwrap_or(preset.candidates),
            mean_tokens: self.mean_tokens.unwrap_or(preset.mean_tokens),
            max_tokens: self.max_tokens.unwrap_or(preset.max_tokens),
            patches: self.patches.unwrap_or(preset.patches),
        };
        shape.check()?;
        Ok(shape)
    }

    pub fn config(&self) -> ModelConfig {
        ModelConfig { d: self.d, heads: self.heads, ..ModelConfig::default() }
    }
}

/// Where to compute.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,

    /// On CUDA devices: products of 16-bit values on tensor cores, or of f32.
    #[arg(long, value_name = "KIND", default_value = "mixed")]
    pub arithmetic: Arithmetic,
}

impl DeviceArgs {
    pub fn open(&self) -> fissfuse::Result<Option<Gpu>> {
        self.device.open(self.arithmetic)
    }
}
