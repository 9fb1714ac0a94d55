//! What the machine can do.

use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::profile::machine::ceilings;
use fissfuse::profile::measurement::Measurement;
use fissfuse::profile::products::{ENCODER_PRODUCTS, product_work};
use serde_json::Map;

use super::session::Session;

/// What the machine can do: bytes moved and FLOPs of products; on a CPU also the rates of the encoders' bf16 products beside
/// their ceiling, measured in turn.
#[derive(clap::Args)]
pub struct CeilingArgs {
    /// What is measured: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceChoice,
}

pub fn ceiling(args: CeilingArgs, session: &mut Session) -> anyhow::Result<()> {
    let gpu = args.device.open(Arithmetic::Mixed)?;
    session.begin("ceiling", gpu.as_ref())?;
    let measured = ceilings(gpu.as_ref())?;
    session.reach(measured);
    let all = Measurement::new("ceilings", Map::new());
    session.push(
        all.with("flops_per_second", measured.flops_per_second).with("bytes_per_second", measured.bytes_per_second),
    );
    if gpu.is_some() {
        return Ok(());
    }
    for shape in &ENCODER_PRODUCTS {
        let parameters = [("rows", shape.rows), ("outputs", shape.outputs), ("inputs", shape.inputs)];
        let parameters = parameters.into_iter().map(|(name, size)| (name.to_string(), size.into())).collect();
        let mut work = product_work(*shape)?;
        let measured = session.measure(shape.name, parameters, |_| (work.run)())?.with_rate("flops", work.flops);
        let ceiling = work.ceiling();
        let share = measured.figure("flops_per_second").zip(ceiling).map_or(f64::NAN, |(rate, ceiling)| rate / ceiling);
        session.push(measured.with("ceiling_flops_per_second", ceiling.unwrap_or(f64::NAN)).with("share", share));
    }
    Ok(())
}
