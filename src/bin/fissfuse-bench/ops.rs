//! Operations beside what the machine does at most.

use anyhow::ensure;
use fissfuse::profile::operations::{Operation, Part};
use serde_json::{Map, Value};

use super::session::Session;
use super::work::DeviceArgs;

/// Time of each operation of a training step of WikiDiverse's size, or of encoders and decoders at the sizes of CLIP ViT-B/32,
/// ResNets and Llama-2-7B; with --ceilings beside what the machine does at most.
#[derive(clap::Args)]
pub struct OpsArgs {
    /// Only operations whose name has this in it.
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Which operations.
    #[arg(long, value_enum, default_value = "training")]
    of: Part,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn ops(args: OpsArgs, session: &mut Session) -> anyhow::Result<()> {
    let gpu = args.device.open()?;
    session.begin("ops", gpu.as_ref())?;
    if args.of == Part::Inference {
        session.set("of", "inference");
    }
    let wanted = args.name.as_deref().unwrap_or_default();
    let all = Operation::all(args.of)?;
    let names: Vec<&str> = all.iter().map(Operation::name).collect();
    ensure!(names.iter().any(|name| name.contains(wanted)), "no operation is called {wanted}: {}", names.join("; "));
    for operation in all.into_iter().filter(|operation| operation.name().contains(wanted)) {
        let (name, extents) = (operation.name().to_string(), operation.extents());
        let operation = operation.open(gpu.as_ref())?;
        for &extent in extents {
            let parameters: Map<String, Value> = [("extent".to_string(), extent.name().into())].into_iter().collect();
            let measured = session.measure(&name, parameters, |_| operation.run(extent))?;
            let (flops, bytes) = operation.cost(extent);
            let row = measured.with_rate("flops", flops as f64).with_rate("bytes", bytes as f64);
            session.push(row.with_roofline(session.ceilings()));
        }
    }
    Ok(())
}
