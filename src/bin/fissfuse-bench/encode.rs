//! Encoders.

use std::path::PathBuf;

use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::encoder::{Compute, ImageEncoder, Precision, TextEncoder, parse_precision};
use fissfuse::profile::encoding::{self, EncodingWork};
use serde_json::{Map, Value};

use super::session::Session;
use super::values::{Values, combinations, value};
use super::work::fingerprint_of_file;

/// Time of encoding texts, which are cut into tokens before, and prepared images.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("encoders").required(true).multiple(true).args(["text_encoder", "image_encoder"]))]
pub struct EncodeArgs {
    /// Hugging Face directory of the text encoder, if texts are to be encoded.
    #[arg(long, value_name = "DIR", requires = "texts")]
    pub text_encoder: Option<PathBuf>,

    /// File of texts, one a line.
    #[arg(long, value_name = "FILE", requires = "text_encoder")]
    pub texts: Option<PathBuf>,

    /// Most tokens of a text.
    #[arg(long, default_value = "64", value_name = "LIST")]
    max_tokens: Values,

    /// Hugging Face directory of the image encoder, if images are to be encoded.
    #[arg(long, value_name = "DIR")]
    pub image_encoder: Option<PathBuf>,

    /// Images of a run, drawn at random.
    #[arg(long, default_value = "32", value_name = "LIST")]
    images: Values,

    /// What the encoders compute with, f32 or bf16 [default: the faster one].
    #[arg(long, value_name = "TYPE", value_parser = parse_precision)]
    precision: Option<Precision>,

    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
}

pub fn encode(args: EncodeArgs, session: &mut Session) -> anyhow::Result<()> {
    let rows = combinations(&[("images", &args.images)])?;
    let gpu = args.device.open(Arithmetic::Mixed)?;
    let precision = args.precision.unwrap_or_else(|| Compute::fastest(gpu.as_ref()));
    let compute = Compute { precision, gpu: gpu.clone() };
    session.begin("encode", gpu.as_ref())?;
    session.set("precision", precision.to_string());
    let texts = args.text_encoder.as_ref().zip(args.texts.as_ref());
    let texts = texts.map(|(folder, file)| Ok::<_, fissfuse::Error>((TextEncoder::open(folder, &compute)?, file)));
    let texts = texts.transpose()?;
    let images = args.image_encoder.as_ref().map(|folder| ImageEncoder::open(folder, &compute)).transpose()?;
    // Before the first row, since these hold for all.
    if let Some((encoder, file)) = &texts {
        session.set("text_encoder", encoder.identity());
        session.set("texts", fingerprint_of_file(file)?);
    }
    images.iter().for_each(|encoder| session.set("image_encoder", encoder.identity()));
    if let Some((encoder, file)) = texts {
        let text = fissfuse::files::read_text(file)?;
        let texts: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        anyhow::ensure!(!texts.is_empty(), "{}: holds no text", file.display());
        for row in combinations(&[("texts", &Values::one(texts.len())), ("max_tokens", &args.max_tokens)])? {
            let work = encoding::texts(&encoder, &texts, value(&row, "max_tokens"))?;
            time(session, "texts", row, work)?;
        }
    }
    if let Some(encoder) = images {
        for row in rows {
            let work = encoding::images(&encoder, value(&row, "images"));
            time(session, "images", row, work)?;
        }
    }
    Ok(())
}

fn time(session: &mut Session, name: &str, parameters: Map<String, Value>, work: EncodingWork) -> anyhow::Result<()> {
    let EncodingWork { count, tokens, mut run } = work;
    let measured = session.measure(name, parameters, |_| run())?;
    let rate = measured.seconds.as_ref().map_or(f64::NAN, |seconds| count as f64 / seconds.p50());
    session.push(measured.with("tokens", tokens as f64).with("per_second", rate));
    Ok(())
}
