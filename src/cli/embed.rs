//! `fissfuse embed`

use std::path::PathBuf;

use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::encoder::{Compute, ExifOrientation, ImageEncoder, Precision, TextEncoder, parse_precision};
use fissfuse::files;
use fissfuse::printable::excerpt;
use fissfuse::tensor::Tensor;
use fissfuse::tensor::safetensors::Writer;

use super::common::{EncoderArgs, at_least_one};
use super::paths;

/// Encode one text and one image, to look at or to compare with another implementation.
///
/// Writes text.tokens (length, width), text.global, image.patches (patches, width) and image.global as f32.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true).multiple(true))]
pub struct Args {
    #[command(flatten)]
    encoders: EncoderArgs,

    /// What encodes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// What the encoders compute with, f32 or bf16.
    // Not the faster one: what is compared with others shall not be rounded.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parse_precision)]
    precision: Precision,

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
    let image = args.image.as_deref().map(|path| ("--image", path));
    let reads: Vec<paths::Named> = args.encoders.named().chain(image).collect();
    paths::keep_apart(&reads, &[("--out", &args.out)])?;
    files::expect_file_at(&args.out)?;
    let text = args.text.as_ref().map(|text| anyhow::Ok((text, args.encoders.text(&None)?))).transpose()?;
    let image = args.image.as_ref().map(|image| anyhow::Ok((image, args.encoders.image(&None)?))).transpose()?;
    let open = |compute: &Compute| {
        let text = text.as_ref().map(|(text, path)| TextEncoder::open(path, compute).map(|encoder| (*text, encoder)));
        let image =
            image.as_ref().map(|(image, path)| ImageEncoder::open(path, compute).map(|encoder| (*image, encoder)));
        Ok((text.transpose()?, image.transpose()?))
    };
    let gpu = args.device.open(Arithmetic::default())?;
    let ((text, image), _) = Compute::open(args.device, gpu, Some(args.precision), open)?;
    let mut tensors = Vec::new();
    if let Some((text, encoder)) = text {
        let (width, _) = encoder.widths();
        for encoded in encoder.encode_texts(&[text], args.max_tokens.unwrap_or(usize::MAX))? {
            encoded.expect_finite(&format!("text {:?}", excerpt(text)), encoder.identity())?;
            tensors.push(("text.tokens", Tensor::new([encoded.tokens.len() / width, width], encoded.tokens)?));
            tensors.push(("text.global", Tensor::new([encoded.global.len()], encoded.global)?));
        }
    }
    if let Some((path, encoder)) = image {
        let (width, _) = encoder.widths();
        for encoded in encoder.encode_images(&[encoder.prepare(path, ExifOrientation::Ignore)?])? {
            encoded.expect_finite(&path.display().to_string(), encoder.identity())?;
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
