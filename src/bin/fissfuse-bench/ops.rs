//! Operations beside what the machine does at most.

use anyhow::ensure;
use fissfuse::profile::operations::{Extent, OperationBench};
use serde_json::{Map, Value};

use super::session::Session;
use super::work::DeviceArgs;

/// Time of each operation of a training step of WikiDiverse's size; with --ceilings beside what the machine does at most.
#[derive(clap::Args)]
pub struct OpsArgs {
    /// Only operations whose name has this in it.
    #[arg(value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn ops(args: OpsArgs, session: &mut Session) -> anyhow::Result<()> {
    let gpu = args.device.open()?;
    session.begin("ops", gpu.as_ref())?;
    let wanted = args.name.as_deref().unwrap_or_default();
    let all = OperationBench::all(gpu.as_ref())?;
    let names: Vec<&str> = all.iter().map(OperationBench::name).collect();
    ensure!(names.iter().any(|name| name.contains(wanted)), "no operation is called {wanted}: {}", names.join("; "));
    for operation in all.iter().filter(|operation| operation.name().contains(wanted)) {
        for extent in Extent::ALL {
            let parameters: Map<String, Value> = [("extent".to_string(), extent.name().into())].into_iter().collect();
            let measured = session.measure(operation.name(), parameters, |_| operation.run(extent))?;
            let (flops, bytes) = operation.cost(extent);
            let row = measured.with_rate("flops", flops as f64).with_rate("bytes", bytes as f64);
            session.push(row.with_roofline(session.ceilings()));
        }
    }
    Ok(())
}
