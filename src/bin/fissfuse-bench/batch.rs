//! Batches as training puts them together.

use fissfuse::profile::batches::{BatchSizes, Batches};
use fissfuse::profile::scale::Lengths;

use super::room::expect_disk;
use super::session::Session;
use super::values::{Values, combinations, value};
use super::work::DeviceArgs;

/// Time to put a batch together of a feature store: which entities its mentions name, where their features lie, who meets whom.
/// On a device, also to have it sent there. Training does it beside the step before, whose time it must not exceed.
#[derive(clap::Args)]
pub struct BatchArgs {
    /// Mentions at once.
    #[arg(long, default_value = "128", value_name = "LIST")]
    mentions: Values,

    /// Candidates of each mention: 10 in WikiDiverse, 100 in WikiMEL.
    #[arg(long, default_value = "10,100", value_name = "LIST")]
    candidates: Values,

    /// Entities of the knowledge base, from which candidates are drawn.
    #[arg(long, default_value = "110000", value_name = "LIST")]
    entities: Values,

    /// Tokens of a text.
    #[arg(long, default_value = "20", value_name = "LIST")]
    tokens: Values,

    /// Patches of an image.
    #[arg(long, default_value = "50", value_name = "LIST")]
    patches: Values,

    /// Draws names, features and candidates.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn batch(args: BatchArgs, session: &mut Session) -> anyhow::Result<()> {
    let sizes = [
        ("mentions", &args.mentions),
        ("candidates", &args.candidates),
        ("entities", &args.entities),
        ("tokens", &args.tokens),
        ("patches", &args.patches),
    ];
    let rows = combinations(&sizes)?;
    let gpu = args.device.open()?;
    session.begin("batch", gpu.as_ref())?;
    session.set("seed", args.seed);
    for row in rows {
        let [entities, tokens, patches] = ["entities", "tokens", "patches"].map(|name| value(&row, name));
        // An item has a few hundred bytes of text, and 16 for each of its rows.
        expect_disk(
            "--entities",
            &std::env::temp_dir(),
            &[entities, tokens.saturating_add(patches).saturating_mul(16).saturating_add(300)],
        )?;
        let mut batches = Batches::simulated(BatchSizes {
            entities,
            mentions: value(&row, "mentions"),
            candidates: value(&row, "candidates"),
            lengths: Lengths { tokens, patches },
            seed: args.seed,
        })?;
        let measured = session.measure("batch", row, |laps| {
            let batch = batches.put_together()?;
            laps.lap("put together");
            if let Some(gpu) = &gpu {
                batch.stage(gpu)?;
                batch.arrive(gpu)?;
                laps.lap("sent");
                // What was sent is not waited for by training either; here, so that batches do not pile up.
                gpu.synchronize()?;
            }
            Ok(())
        })?;
        session.push(measured);
    }
    Ok(())
}
