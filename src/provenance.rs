//! Where a result comes from.

use serde::{Deserialize, Serialize};

/// What is needed to produce a result again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this program.
    pub version: String,
    /// Commit it was built from.
    pub commit: String,
    /// What computed the result.
    pub device: String,
    /// Checksum of the dataset's files of entities and mentions.
    pub dataset: String,
}

impl Provenance {
    /// Of a result computed by this device on a dataset.
    pub fn new(device: String, dataset: String) -> Provenance {
        let (version, commit) = (env!("CARGO_PKG_VERSION").into(), env!("FISSFUSE_COMMIT").into());
        Provenance { version, commit, device, dataset }
    }
}
