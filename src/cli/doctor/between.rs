//! What gradients take from card to card, where there are several.

use std::io::Write;

use fissfuse::device::Gpu;
use fissfuse::device::cuda::{Arithmetic, Nccl};
use fissfuse::profile::between::{Between, Rate};
use fissfuse::report::table;
use serde::Serialize;

/// What there is between cards.
#[derive(Serialize)]
pub struct Cards {
    /// Version of NCCL, if it is there.
    nccl: Option<String>,
    /// Why it is not.
    without_nccl: Option<String>,
    copies: Vec<Between>,
    /// How `train --devices` adds up gradients, and why.
    chosen: String,
}

impl Cards {
    /// Measures and prints; nothing where there is but one card.
    pub fn measure(devices: usize, out: &mut dyn Write) -> anyhow::Result<Option<Cards>> {
        if devices < 2 {
            return Ok(None);
        }
        let gpus = (0..devices).map(|ordinal| Gpu::open(ordinal, Arithmetic::Mixed));
        let copies = Between::all(&gpus.collect::<fissfuse::Result<Vec<_>>>()?)?;
        let found = Nccl::load().map(Nccl::version);
        let direct = copies.iter().filter(|pair| pair.direct.is_some()).count();
        let own = match copies.len() - direct {
            0 => "copies from card to card: the driver gives peer access to all pairs".to_string(),
            lacking => {
                format!("copies through the host, since of {} pairs {lacking} have no peer access", copies.len())
            }
        };
        let chosen = match &found {
            Ok(version) => format!("NCCL {version}, since it is there; FISSFUSE_NCCL=off takes {own}"),
            Err(why) => format!("{own}; not NCCL: {why}"),
        };
        writeln!(out, "\nbetween cards; copies of 64 MiB, and of 4 bytes, the best of five")?;
        let header = ["from", "to", "peer access", "through the host", "each", "direct", "each"];
        writeln!(out, "{}", table(&header, copies.iter().map(row)))?;
        writeln!(out, "train --devices: gradients go by {chosen}")?;
        let (nccl, without_nccl) = found.map_or_else(|why| (None, Some(why)), |version| (Some(version), None));
        Ok(Some(Cards { nccl, without_nccl, copies, chosen }))
    }
}

fn row(pair: &Between) -> Vec<String> {
    let said = |rate: Option<Rate>| match rate {
        Some(rate) => [format!("{:.1} GB/s", rate.bytes_per_second / 1e9), format!("{:.1} us", 1e6 * rate.latency)],
        None => ["-", "-"].map(String::from),
    };
    let access = if pair.direct.is_some() { "yes" } else { "no" };
    let mut row = vec![format!("cuda:{}", pair.from), format!("cuda:{}", pair.to), access.to_string()];
    row.extend(said(Some(pair.through_host)));
    row.extend(said(pair.direct));
    row
}
