//! What the work is, and where it is done.

use std::path::Path;

use anyhow::ensure;
use clap::ValueEnum;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::{DeviceChoice, Gpu};
use fissfuse::encoder::Fingerprint;
use fissfuse::files;
use fissfuse::model::{Ablation, Architecture, ModelConfig};
use fissfuse::profile::synthetic::Shape;
use serde_json::{Map, Value};

use super::session::Session;
use super::values::{Values, combinations, value};

/// The greatest width of the network: its weights and their FLOPs can still be counted.
const WIDEST: usize = 1 << 14;

/// Tells a file's content from another's.
pub fn fingerprint_of_file(path: &Path) -> anyhow::Result<String> {
    files::expect_regular(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| anyhow::anyhow!("{}: its name is not UTF-8", path.display()))?;
    Ok(Fingerprint::of(folder, &[name])?.as_str().to_string())
}

/// Sizes of a step in the paper.
#[derive(Clone, Copy, ValueEnum)]
pub enum Preset {
    /// 128 mentions of 10 candidates.
    Wikidiverse,
    /// 128 mentions of 100 candidates.
    Wikimel,
}

/// Sizes of the work and of the model. Lists and ranges give a row for each combination.
#[derive(clap::Args)]
pub struct WorkArgs {
    /// Sizes of one of the paper's datasets; the flags below override them.
    #[arg(long, value_enum, default_value_t = Preset::Wikidiverse)]
    pub preset: Preset,

    /// Mentions at once.
    #[arg(long, value_name = "LIST")]
    pub mentions: Option<Values>,

    /// Candidates of each mention.
    #[arg(long, value_name = "LIST")]
    pub candidates: Option<Values>,

    /// Mean length of a text in tokens.
    #[arg(long, value_name = "LIST")]
    pub mean_tokens: Option<Values>,

    /// Longest text in tokens, to which a textbook pads.
    #[arg(long, value_name = "LIST")]
    pub max_tokens: Option<Values>,

    /// Patches of an image.
    #[arg(long, value_name = "LIST")]
    pub patches: Option<Values>,

    /// Hidden width of the network.
    #[arg(long, default_value = "100", value_name = "LIST")]
    pub d: Values,

    /// Cross-attention heads.
    #[arg(long, default_value = "1", value_name = "LIST")]
    pub heads: Values,

    /// Draws features, weights and candidates.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// One combination of sizes.
pub struct Row {
    /// Of the batch.
    pub shape: Shape,
    /// Of the model.
    pub config: ModelConfig,
    /// The sizes by name.
    pub parameters: Map<String, Value>,
}

impl WorkArgs {
    /// A row for each combination. Fails, before anything is measured, if there are too many or one makes no sense.
    pub fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let preset = match self.preset {
            Preset::Wikidiverse => Shape::WIKIDIVERSE,
            Preset::Wikimel => Shape::WIKIMEL,
        };
        let or = |given: &Option<Values>, usual: usize| given.clone().unwrap_or_else(|| Values::one(usual));
        let rows = combinations(&[
            ("mentions", &or(&self.mentions, preset.mentions)),
            ("candidates", &or(&self.candidates, preset.candidates)),
            ("mean_tokens", &or(&self.mean_tokens, preset.mean_tokens)),
            ("max_tokens", &or(&self.max_tokens, preset.max_tokens)),
            ("patches", &or(&self.patches, preset.patches)),
            ("d", &self.d),
            ("heads", &self.heads),
        ])?;
        let row = |parameters: Map<String, Value>| {
            let of = |name: &str| value(&parameters, name);
            let shape = Shape {
                mentions: of("mentions"),
                candidates: of("candidates"),
                mean_tokens: of("mean_tokens"),
                max_tokens: of("max_tokens"),
                patches: of("patches"),
            };
            shape.check()?;
            ensure!(of("d") <= WIDEST, "d {} is too wide: {WIDEST} at most", of("d"));
            let config = ModelConfig { d: of("d"), heads: of("heads"), ..ModelConfig::default() };
            config.check()?;
            Ok(Row { shape, config, parameters })
        };
        rows.into_iter().map(row).collect()
    }

    /// Notes what holds for all rows.
    pub fn set(&self, session: &mut Session) {
        session.set("seed", self.seed);
    }
}

/// Which model trains.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Which model.
    #[arg(long, value_name = "NAME", default_value = "fissfuse")]
    model: Architecture,

    /// Which of the paper's ablations (Table 3).
    #[arg(long, value_enum, default_value_t = Ablation::None)]
    ablation: Ablation,
}

impl ModelArgs {
    /// The model of a row's sizes.
    pub fn config(&self, config: ModelConfig) -> anyhow::Result<ModelConfig> {
        let config = ModelConfig { network: self.model, ablation: self.ablation, ..config };
        config.check_settings()?;
        Ok(config)
    }

    /// Notes what is not as it usually is.
    pub fn set(&self, session: &mut Session) {
        if self.model != ModelConfig::default().network {
            session.set("model", self.model.name());
        }
        if self.ablation != Ablation::None {
            let ablation = self.ablation.to_possible_value();
            session.set("ablation", ablation.map_or(String::new(), |value| value.get_name().to_string()));
        }
    }
}

/// Where to compute.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,

    /// On CUDA devices: products of 16-bit values and tf32 on tensor cores, of bf16 there, or of f32.
    #[arg(long, value_name = "KIND", default_value = "mixed")]
    pub arithmetic: Arithmetic,
}

impl DeviceArgs {
    pub fn open(&self) -> fissfuse::Result<Option<Gpu>> {
        self.device.open(self.arithmetic)
    }
}
