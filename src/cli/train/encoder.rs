//! Flags of encoders that are trained along, and what is said of them.

use std::path::{Path, PathBuf};

use anyhow::bail;
use fissfuse::data::Manifest;
use fissfuse::encoder::{EncoderPaths, TrainableEncoders};
use fissfuse::train::EncoderSettings;

use super::super::paths;
use super::Args;

/// Which encoders are trained along, and flags that override how.
#[derive(clap::Args)]
pub struct EncoderTrainingArgs {
    /// Train the CLIP, SigLIP, BERT or ResNet in this Hugging Face directory along: each step computes the features of texts and
    /// images, and no store is read.
    #[arg(long, value_name = "DIR", conflicts_with = "features")]
    train_encoder: Option<PathBuf>,

    /// Train the CLIP, SigLIP or BERT in this directory along for texts [default: --train-encoder].
    #[arg(long, value_name = "DIR", conflicts_with = "features")]
    train_text_encoder: Option<PathBuf>,

    /// Train the CLIP, SigLIP or ResNet in this directory along for images [default: --train-encoder].
    #[arg(long, value_name = "DIR", conflicts_with = "features")]
    train_image_encoder: Option<PathBuf>,

    /// With --train-encoder: peak learning rate of the encoder.
    #[arg(long, requires = "trained", conflicts_with = "features")]
    encoder_learning_rate: Option<f32>,

    /// With --train-encoder: layers of each tower that stay as they are, from below, and with them the embeddings.
    #[arg(long, requires = "trained", conflicts_with = "features", value_name = "LAYERS")]
    freeze_layers: Option<usize>,

    /// With --train-encoder: keep the input alone of each layer, and compute the layer again for its gradients: the same bits in less
    /// memory, for a third more work.
    #[arg(long, requires = "trained", conflicts_with = "features")]
    gradient_checkpointing: bool,

    /// With --train-encoder: rank of LoRA on queries and values; 0 trains the weights themselves.
    #[arg(long, requires = "trained", conflicts_with = "features", value_name = "RANK")]
    lora_rank: Option<usize>,
}

impl EncoderTrainingArgs {
    /// The directories that flags name, with their flags.
    pub fn named(&self) -> impl Iterator<Item = paths::Named<'_>> {
        let flags = ["--train-encoder", "--train-text-encoder", "--train-image-encoder"].into_iter();
        let paths = [&self.train_encoder, &self.train_text_encoder, &self.train_image_encoder];
        flags.zip(paths).filter_map(|(flag, path)| Some((flag, path.as_deref()?)))
    }

    /// The directories of the encoders that are trained along, if any is. Fails if one is named that has nothing to do.
    pub fn paths(&self) -> anyhow::Result<Option<EncoderPaths>> {
        if let (Some(both), Some(_), Some(_)) =
            (&self.train_encoder, &self.train_text_encoder, &self.train_image_encoder)
        {
            bail!("--train-encoder {}: texts and images have encoders of their own; leave it out", both.display());
        }
        let of = |own: &Option<PathBuf>| own.as_ref().or(self.train_encoder.as_ref()).cloned();
        let paths = EncoderPaths { text: of(&self.train_text_encoder), image: of(&self.train_image_encoder) };
        Ok((paths.text.is_some() || paths.image.is_some()).then_some(paths))
    }

    pub fn apply(&self, settings: &mut EncoderSettings) {
        settings.learning_rate = self.encoder_learning_rate.unwrap_or(settings.learning_rate);
        settings.freeze_layers = self.freeze_layers.unwrap_or(settings.freeze_layers);
        settings.gradient_checkpointing |= self.gradient_checkpointing;
        settings.lora_rank = self.lora_rank.unwrap_or(settings.lora_rank);
    }
}

/// Where the encoders of a run are, once it kept an epoch, and the command that makes features of them.
pub struct Kept {
    paths: EncoderPaths,
    command: String,
}

impl Kept {
    /// Of a run on features that are made so.
    pub fn new(args: &Args, paths: EncoderPaths, manifest: &Manifest) -> Kept {
        let shown = |path: &Path| path.display().to_string();
        let config = args.config.config.as_deref().map(shown);
        let command = manifest.encode_command(&shown(&args.data.data), &paths, config.as_deref(), "FEATURES");
        // What is left out in training stops whoever does not leave it out.
        let skip_bad = if args.data.skip_bad { " --skip-bad" } else { "" };
        Kept { paths, command: format!("{command}{skip_bad}") }
    }

    /// Fails if they are not there as they were written.
    pub fn expect_whole(&self) -> anyhow::Result<()> {
        let read = || TrainableEncoders::read(&self.paths)?.weights().map(drop);
        let advice =
            "the best epoch's encoder, which the run wrote there, is gone or broken; train again with another --out";
        read().map_err(|error| error.advising(advice)).map_err(Into::into)
    }

    /// Where they are, and the command.
    pub fn said(&self) -> anyhow::Result<String> {
        let encoders = TrainableEncoders::read(&self.paths)?;
        let which = if encoders.are_two() { "its encoders are" } else { "its encoder is" };
        Ok(format!("{which} in {}; features for it:\n  {}", encoders.shown(), self.command))
    }
}
