//! `fissfuse embed`

use std::path::PathBuf;

use fissfuse::encoder::{Encoders, read_image};
use fissfuse::tensor::Tensor;
use fissfuse::tensor::safetensors::Writer;

use super::common::at_least_one;

/// Encode one text and one image, to look at or to compare with another implementation.
///
/// Writes text.tokens (length, width), text.global, image.patches (patches, width) and image.global as f32.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true).multiple(true))]
pub struct Args {
    /// Hugging Face directory of the encoder.
    #[arg(long, value_name = "DIR")]
    encoder: PathBuf,

    /// Text to encode.
    #[arg(long, group = "input")]
    text: Option<String>,

    /// Image to encode.
    #[arg(long, group = "input", value_name = "FILE")]
    image: Option<PathBuf>,

    /// Most tokens of the text [default: as many as the encoder takes].
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    max_tokens: Option<usize>,

    /// Where to write the features.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let encoders = Encoders::open(&args.encoder)?;
    let mut tensors = Vec::new();
    if let Some(text) = &args.text {
        let (width, _) = encoders.text.widths();
        for encoded in encoders.text.encode_texts(&[text], args.max_tokens.unwrap_or(usize::MAX))? {
            tensors.push(("text.tokens", Tensor::new([encoded.tokens.len() / width, width], encoded.tokens)?));
            tensors.push(("text.global", Tensor::new([encoded.global.len()], encoded.global)?));
        }
    }
    if let Some(path) = &args.image {
        let (width, _) = encoders.image.widths();
        let pixels = encoders.image.processor().process(read_image(path)?)?;
        for encoded in encoders.image.encode_images(&[pixels])? {
            tensors.push(("image.patches", Tensor::new([encoded.tokens.len() / width, width], encoded.tokens)?));
            tensors.push(("image.global", Tensor::new([encoded.global.len()], encoded.global)?));
        }
    }
    let mut writer = Writer::default();
    for (name, tensor) in &tensors {
        writer.tensor(*name, tensor);
        println!("{name} {:?}", tensor.shape());
    }
    writer.write(&args.out)?;
    Ok(())
}
