//! `fissfuse replay`

use std::path::PathBuf;

use fissfuse::device::describe;
use fissfuse::eval::replay::replay;
use fissfuse::files;

use super::common::DeviceArgs;
use super::paths;

/// Run the engine on a draw of reference/make_batch.py, to compare it with PyTorch.
///
/// Writes scores, similarity, loss and grad.<parameter> under the names of the reference's expected.safetensors.
#[derive(clap::Args)]
pub struct Args {
    /// Parameters, named as in the reference.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,

    /// Padded features, masks and gold indices.
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,

    /// Where to write what was computed.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// The reference's config.json [default: widths of the weights, one head].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut reads = vec![("--weights", args.weights.as_path()), ("--batch", &args.batch)];
    reads.extend(args.config.as_deref().map(|path| ("--config", path)));
    paths::keep_apart(&reads, &[("--out", &args.out)])?;
    files::expect_file_at(&args.out)?;
    let gpu = args.device.open()?;
    let replayed = replay(&args.weights, &args.batch, args.config.as_deref(), gpu.as_ref())?;
    replayed.write(&args.out)?;
    println!("loss {:.6}, computed by {}; wrote {}", replayed.loss, describe(gpu.as_ref()), args.out.display());
    Ok(())
}
