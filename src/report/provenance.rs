//! Where a result comes from.

use serde::Serialize;

/// What is needed to produce a result again.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    /// Version of this program.
    pub version: &'static str,
    /// Commit it was built from.
    pub commit: &'static str,
    /// What computed the result.
    pub device: String,
    /// Checksum of the dataset's files of entities and mentions.
    pub dataset: String,
    /// Seed of the candidates' order.
    pub seed: u64,
}

impl Provenance {
    /// Of a result computed by this device on a dataset.
    pub fn new(device: String, dataset: String, seed: u64) -> Provenance {
        Provenance { version: env!("CARGO_PKG_VERSION"), commit: env!("FISSFUSE_COMMIT"), device, dataset, seed }
    }
}
