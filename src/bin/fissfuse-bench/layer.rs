//! Layers of an encoder.

use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::encoder::{self, Compute};
use fissfuse::profile::layers::LayerBench;

use super::room::expect_memory;
use super::session::Session;
use super::values::{Values, combinations, value};

/// Time of layers of CLIP ViT-B/32's vision tower.
#[derive(clap::Args)]
pub struct LayerArgs {
    /// Images of a run.
    #[arg(long, default_value = "8", value_name = "LIST")]
    images: Values,

    /// Layers of a run.
    #[arg(long, default_value = "1", value_name = "LIST")]
    layers: Values,

    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// What the layers compute with, f32 or bf16 [default: the faster one].
    #[arg(long, value_name = "TYPE", value_parser = encoder::parse_precision)]
    precision: Option<encoder::Precision>,
}

pub fn layer(args: LayerArgs, session: &mut Session) -> anyhow::Result<()> {
    let rows = combinations(&[("layers", &args.layers), ("images", &args.images)])?;
    let gpu = args.device.open(Arithmetic::Mixed)?;
    let precision = args.precision.unwrap_or_else(|| Compute::fastest(gpu.as_ref()));
    session.begin("layer", gpu.as_ref())?;
    session.set("precision", precision.to_string());
    for row in rows {
        // States of 50 patches of 768 numbers, and seven million weights in 16 bits.
        expect_memory("--images", &[value(&row, "images"), 50, 768, 8])?;
        expect_memory("--layers", &[value(&row, "layers"), 7_000_000, 2])?;
        let compute = Compute { precision, gpu: gpu.clone() };
        let mut bench = LayerBench::new(value(&row, "layers"), value(&row, "images"), compute)?;
        let cost = bench.cost()?;
        let measured = session.measure("layers of ViT-B/32", row, |_| bench.run())?;
        session.push(measured.with_rate("flops", cost.forward as f64).with("least_bytes", cost.forward_bytes as f64));
    }
    Ok(())
}
