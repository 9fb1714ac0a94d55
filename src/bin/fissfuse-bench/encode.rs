//! The encoders and their products.

use std::path::PathBuf;

use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::{DeviceChoice, Gpu};
use fissfuse::encoder::{Compute, ImageEncoder, Precision, TextEncoder, parse_precision};
use fissfuse::profile::encoding::EncodingRate;
use fissfuse::profile::products::{ENCODER_PRODUCTS, ProductRate, product_rate};
use fissfuse::profile::{Summary, encoding};
use fissfuse::report::table;
use serde_json::json;

use super::at_least_one;
use super::machine;
use super::milliseconds;
use super::print_json;

/// Time of encoding texts, which are cut into tokens before, and prepared images.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("encoders").required(true).multiple(true).args(["text_encoder", "image_encoder"]))]
pub struct EncodeArgs {
    /// Hugging Face directory of the text encoder, if texts are to be encoded.
    #[arg(long, value_name = "DIR", requires = "texts")]
    text_encoder: Option<PathBuf>,

    /// File of texts, one a line.
    #[arg(long, value_name = "FILE", requires = "text_encoder")]
    texts: Option<PathBuf>,

    /// Most tokens of a text.
    #[arg(long, default_value_t = 64, value_parser = at_least_one())]
    max_tokens: usize,

    /// Hugging Face directory of the image encoder, if images are to be encoded.
    #[arg(long, value_name = "DIR")]
    image_encoder: Option<PathBuf>,

    /// Images of a run, drawn at random.
    #[arg(long, default_value_t = 32, value_parser = at_least_one())]
    images: usize,

    /// What the encoders compute with, f32 or bf16 [default: the faster one].
    #[arg(long, value_name = "TYPE", value_parser = parse_precision)]
    precision: Option<Precision>,

    /// Timed runs of each.
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    runs: usize,

    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
}

/// What the machine can do: on a CPU, rates of the encoders' bf16 products beside its ceiling, measured in turn; on a device,
/// bytes copied and bf16 products of its tensor cores.
#[derive(clap::Args)]
pub struct CeilingArgs {
    /// Timed runs of each product.
    #[arg(long, default_value_t = 20, value_parser = at_least_one())]
    runs: usize,

    /// What is measured: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceChoice,
}

pub fn encode(args: EncodeArgs, json: bool) -> anyhow::Result<()> {
    let gpu = args.device.open(Arithmetic::Mixed)?;
    let precision = args.precision.unwrap_or_else(|| Compute::fastest(gpu.as_ref()));
    let compute = Compute { precision, gpu: gpu.clone() };
    let mut rates: Vec<(&str, EncodingRate)> = Vec::new();
    if let (Some(folder), Some(file)) = (&args.text_encoder, &args.texts) {
        let encoder = TextEncoder::open(folder, &compute)?;
        let text = fissfuse::files::read_text(file)?;
        let texts: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        anyhow::ensure!(!texts.is_empty(), "{}: holds no text", file.display());
        rates.push(("texts", encoding::texts(&encoder, &texts, args.max_tokens, args.runs)?));
    }
    if let Some(folder) = &args.image_encoder {
        let encoder = ImageEncoder::open(folder, &compute)?;
        rates.push(("images", encoding::images(&encoder, args.images, args.runs)?));
    }
    if json {
        let rates: serde_json::Map<_, _> = rates.into_iter().map(|(name, rate)| (name.into(), json!(rate))).collect();
        return print_json(&json!({"machine": machine(gpu.as_ref()), "precision": precision, "rates": rates}));
    }
    println!("{}; {precision}", machine(gpu.as_ref()));
    let row = |(name, rate): &(&str, EncodingRate)| {
        let Summary { min, p50, max, .. } = rate.seconds;
        let times = [p50, min, max].map(milliseconds);
        let counts = [name.to_string(), rate.count.to_string(), rate.tokens.to_string()];
        counts.into_iter().chain(times).chain([format!("{:.1}", rate.per_second)]).collect()
    };
    let header = ["encoded", "a run", "tokens or patches", "median ms", "min ms", "max ms", "per second"];
    println!("{}", table(&header, rates.iter().map(row)));
    Ok(())
}

pub fn ceiling(args: CeilingArgs, json: bool) -> anyhow::Result<()> {
    if let Some(gpu) = args.device.open(Arithmetic::Mixed)? {
        return device_ceilings(&gpu, json);
    }
    let rates = ENCODER_PRODUCTS.iter().map(|&shape| product_rate(shape, args.runs));
    let rates: Vec<ProductRate> = rates.collect::<fissfuse::Result<_>>()?;
    if json {
        return print_json(&json!({"machine": machine(None), "products": rates}));
    }
    println!("{}", machine(None));
    let row = |rate: &ProductRate| {
        let ProductRate { shape, flops, ceiling } = rate;
        let giga = |flops: &f64| format!("{:.0}", flops / 1e9);
        let sizes = [shape.rows, shape.outputs, shape.inputs].map(|n| n.to_string());
        let rates = [giga(flops), giga(ceiling), format!("{:.0}", 100.0 * flops / ceiling)];
        [shape.name.to_string()].into_iter().chain(sizes).chain(rates).collect()
    };
    println!("{}", table(&["product", "rows", "outputs", "inputs", "GFLOP/s", "ceiling", "%"], rates.iter().map(row)));
    Ok(())
}

fn device_ceilings(gpu: &Gpu, json: bool) -> anyhow::Result<()> {
    let ceilings = gpu.ceilings()?;
    let (bytes, flops) = (ceilings.bytes_per_second, ceilings.tensor_flops);
    if json {
        return print_json(&json!({"machine": machine(Some(gpu)), "bytes_per_second": bytes, "tensor_flops": flops}));
    }
    println!("{}", machine(Some(gpu)));
    println!("{:.0} GB/s copied, {:.1} TFLOP/s of bf16 tensor cores", bytes / 1e9, flops / 1e12);
    Ok(())
}
