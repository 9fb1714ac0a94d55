//! What several subcommands share: opening data, progress bars, lists of what was skipped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use fissfuse::data::{
    Batcher, Counts, Dataset, EncodeSettings, FeatureStore, GoldMissing, Manifest, Skipped, Tolerance,
};
use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::{DeviceChoice, Gpu};
use fissfuse::encoder::{Compute, EncoderPaths, Precision, parse_precision};
use fissfuse::model::{Ablation, Architecture, Modalities, NETWORKS};
use fissfuse::printable::printable;
use fissfuse::train::{RunConfig, Schedule};
use indicatif::{ProgressBar, ProgressStyle};

/// Most skipped records that are listed one by one.
const LISTED: usize = 20;

/// Parses counts that cannot be zero.
pub fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Parses a model's name.
fn architecture() -> impl TypedValueParser<Value = Architecture> {
    PossibleValuesParser::new(NETWORKS.iter().map(|network| network.name()))
        .try_map(|name| name.parse::<Architecture>())
}

/// Flags of subcommands that read a dataset.
#[derive(clap::Args)]
pub struct DataArgs {
    /// Folder of the dataset (entities.jsonl, {train,valid,test}.jsonl, images/).
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Leave out bad records and images, count and list them, instead of stopping at the first.
    #[arg(long)]
    pub skip_bad: bool,
}

impl DataArgs {
    pub fn tolerance(&self) -> Tolerance {
        if self.skip_bad { Tolerance::Skip } else { Tolerance::Strict }
    }

    pub fn open(&self, skipped: &mut Skipped) -> anyhow::Result<Dataset> {
        Ok(Dataset::open(&self.data, self.tolerance(), skipped)?)
    }
}

/// Flags of subcommands that compute where they are told to.
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
    /// Opens the device; `None` is the CPU.
    pub fn open(&self) -> anyhow::Result<Option<Gpu>> {
        Ok(self.device.open(self.arithmetic)?)
    }
}

/// Flags of subcommands that compute on a feature store.
#[derive(clap::Args)]
pub struct FeatureMemoryArgs {
    /// On CUDA devices: percent of the free memory that one table of features may take to stay there; larger ones are
    /// copied batch by batch while the device computes.
    #[arg(long, value_name = "PERCENT", default_value_t = 60, value_parser = RangedU64ValueParser::<usize>::new().range(0..=100))]
    pub feature_memory: usize,
}

impl FeatureMemoryArgs {
    /// Opens the device for the store's features; `None` is the CPU.
    pub fn open(&self, device: &DeviceArgs) -> anyhow::Result<Option<Gpu>> {
        let gpu = device.open()?;
        gpu.iter().for_each(|gpu| gpu.set_resident_percent(self.feature_memory));
        Ok(gpu)
    }
}

/// Flags of subcommands that encode.
#[derive(clap::Args)]
pub struct ComputeArgs {
    /// What encodes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// What the encoders compute with, f32 or bf16 [default: bf16 on CUDA devices and if the processor has instructions for
    /// it].
    #[arg(long, value_name = "TYPE", value_parser = parse_precision)]
    precision: Option<Precision>,
}

impl ComputeArgs {
    /// Opens the device, and what encodes on it; the setting counts where no flag says how to compute.
    pub fn open<T>(
        &self,
        setting: Option<Precision>,
        open: impl Fn(&Compute) -> fissfuse::Result<T>,
    ) -> anyhow::Result<(T, Compute)> {
        let gpu = self.device.open(Arithmetic::default())?;
        Ok(Compute::open(self.device, gpu, self.precision.or(setting), open)?)
    }
}

/// Flags that name the encoders.
#[derive(clap::Args)]
pub struct EncoderArgs {
    /// Hugging Face directory of an encoder of texts and images: CLIP.
    #[arg(long, value_name = "DIR")]
    pub encoder: Option<PathBuf>,

    /// Hugging Face directory of the encoder of texts: CLIP, SigLIP or BERT [default: --encoder].
    #[arg(long, value_name = "DIR")]
    pub text_encoder: Option<PathBuf>,

    /// Hugging Face directory of the encoder of images: CLIP, SigLIP or ResNet [default: --encoder].
    #[arg(long, value_name = "DIR")]
    pub image_encoder: Option<PathBuf>,
}

impl EncoderArgs {
    /// The directories that flags name, with their flags.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let flags = ["--encoder", "--text-encoder", "--image-encoder"].into_iter();
        let paths = [&self.encoder, &self.text_encoder, &self.image_encoder];
        flags.zip(paths).filter_map(|(flag, path)| Some((flag, path.as_deref()?)))
    }

    /// The directories of the encoders of texts and of images, if these are read; that of the settings where no flag
    /// names one.
    pub fn paths(&self, settings: &EncodeSettings, texts: bool, images: bool) -> anyhow::Result<EncoderPaths> {
        let text = texts.then(|| self.text(&settings.text_encoder)).transpose()?;
        Ok(EncoderPaths { text, image: images.then(|| self.image(&settings.image_encoder)).transpose()? })
    }

    /// The directories of the encoders that a store was made with.
    pub fn paths_of(&self, manifest: &Manifest) -> anyhow::Result<EncoderPaths> {
        self.paths(&EncodeSettings::default(), manifest.reads_texts(), manifest.reads_images())
    }

    /// Whether an encoder of images is named.
    pub fn names_images(&self, settings: &EncodeSettings) -> bool {
        self.image(&settings.image_encoder).is_ok()
    }

    /// The directory of the text encoder.
    pub fn text(&self, setting: &Option<PathBuf>) -> anyhow::Result<PathBuf> {
        let path = self.text_encoder.as_ref().or(self.encoder.as_ref()).or(setting.as_ref()).cloned();
        path.context("no encoder of texts is given: add --encoder DIR or --text-encoder DIR")
    }

    /// The directory of the image encoder.
    pub fn image(&self, setting: &Option<PathBuf>) -> anyhow::Result<PathBuf> {
        let path = self.image_encoder.as_ref().or(self.encoder.as_ref()).or(setting.as_ref()).cloned();
        path.context("no encoder of images is given: add --encoder DIR or --image-encoder DIR")
    }
}

/// Opens a store and looks up a dataset's entities in it.
pub fn batcher(dataset: &Dataset, features: &Path) -> anyhow::Result<Batcher> {
    Ok(Batcher::new(dataset, Arc::new(FeatureStore::open(features)?)))
}

/// Says on stderr what was left out.
pub fn list_skipped(skipped: &Skipped) {
    if skipped.0.is_empty() {
        return;
    }
    eprintln!("left out {} bad records or images:", skipped.0.len());
    skipped.0.iter().take(LISTED).for_each(|error| eprintln!("  {}", printable(&error.to_string())));
    if skipped.0.len() > LISTED {
        eprintln!("  and {} more", skipped.0.len() - LISTED);
    }
}

/// Says on stderr what became of mentions without their gold entity or without an image.
pub fn report_counts(what: &str, counts: &Counts, policy: GoldMissing) {
    if counts.gold_missing > 0 {
        let fate = match policy {
            GoldMissing::Drop => "dropped",
            GoldMissing::Miss => "counted as misses",
            GoldMissing::Inject => "given it as one more candidate",
        };
        eprintln!("{what}: {} of {} mentions lack their gold entity: {fate}", counts.gold_missing, counts.mentions);
    }
    if counts.without_image > 0 {
        eprintln!("{what}: {} of {} mentions have no image", counts.without_image, counts.mentions);
    }
}

/// A progress bar on stderr with rate and time left; nothing where stderr is no terminal.
pub fn progress(unit: &str) -> ProgressBar {
    let template = format!("{{msg}} [{{bar:30}}] {{pos}}/{{len}} {unit} ({{per_sec}}, {{eta}} left)");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::no_length().with_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// The configuration file with the flags that override it.
#[derive(clap::Args)]
pub struct ConfigArgs {
    /// Configuration file [default: the settings of configs/wikimel.toml, but for the encoders]; the flags below override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Which model.
    #[arg(long, value_name = "NAME", value_parser = architecture())]
    model: Option<Architecture>,

    /// Hidden width of the network.
    #[arg(long)]
    d: Option<usize>,

    /// Cross-attention heads; must divide d.
    #[arg(long)]
    heads: Option<usize>,

    /// Dropout of the projected features.
    #[arg(long)]
    dropout: Option<f32>,

    /// Remove a part of the model, as a row of the paper's Table 3 does.
    #[arg(long)]
    ablation: Option<Ablation>,

    /// Read one modality only.
    #[arg(long)]
    modalities: Option<Modalities>,

    /// Passes over the training mentions.
    #[arg(long)]
    epochs: Option<usize>,

    /// Mentions of a step.
    #[arg(long)]
    batch_size: Option<usize>,

    /// Peak learning rate.
    #[arg(long)]
    learning_rate: Option<f32>,

    /// How the learning rate changes.
    #[arg(long)]
    schedule: Option<Schedule>,

    /// Decoupled weight decay.
    #[arg(long)]
    weight_decay: Option<f32>,

    /// Negatives sampled from each candidate list and epoch; 0 takes all.
    #[arg(long)]
    negatives: Option<usize>,

    /// Draws weights, orders, negatives and dropout.
    #[arg(long)]
    seed: Option<u64>,

    /// What becomes of mentions whose candidates lack the gold entity.
    #[arg(long)]
    gold_missing: Option<GoldMissing>,

    /// Steps between checkpoints within an epoch; 0 writes one at the end of each epoch only.
    #[arg(long)]
    checkpoint_steps: Option<usize>,

    /// Share of the training mentions to train on, in (0, 1]; those of a smaller share are among those of a larger one
    /// of the same seed.
    #[arg(long)]
    share: Option<f64>,
}

impl ConfigArgs {
    pub fn read(&self) -> anyhow::Result<RunConfig> {
        let mut config = match &self.config {
            Some(path) => RunConfig::read(path)?,
            None => RunConfig::default(),
        };
        fn set<T: Copy>(to: &mut T, from: Option<T>) {
            *to = from.unwrap_or(*to);
        }
        let RunConfig { model, train, .. } = &mut config;
        set(&mut model.name, self.model);
        set(&mut model.d, self.d);
        set(&mut model.heads, self.heads);
        set(&mut model.dropout, self.dropout);
        set(&mut model.ablation, self.ablation);
        set(&mut model.modalities, self.modalities);
        set(&mut train.epochs, self.epochs);
        set(&mut train.batch_size, self.batch_size);
        set(&mut train.learning_rate, self.learning_rate);
        set(&mut train.schedule, self.schedule);
        set(&mut train.weight_decay, self.weight_decay);
        set(&mut train.negatives, self.negatives);
        set(&mut train.seed, self.seed);
        set(&mut train.gold_missing, self.gold_missing);
        set(&mut train.checkpoint_steps, self.checkpoint_steps);
        set(&mut train.share, self.share);
        Ok(config)
    }
}

/// Writes a value as indented JSON, whole or not at all.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot be written as JSON")?;
    Ok(fissfuse::files::write_whole(path, |out| writeln!(out, "{text}"))?)
}
