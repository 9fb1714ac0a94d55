//! Comparing a store's contents with its checksums.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Kind, Manifest, Seal, checksum};
use crate::error::{Error, Result};
use crate::tensor::safetensors::Reader;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Shards.
    pub shards: usize,
    /// Texts and images in them.
    pub items: usize,
    /// Bytes of features.
    pub bytes: usize,
}

/// Reads a whole store and compares each shard with its checksum. An error names the first that differs.
pub fn check(folder: &Path) -> Result<Checked> {
    Manifest::read(folder)?;
    let mut shards = Vec::new();
    for kind in [Kind::Text, Kind::Image] {
        shards.extend(kind.shards(folder)?.into_iter().map(|(_, path)| (kind, path)));
    }
    let checked: Vec<Checked> = shards.par_iter().map(shard).collect::<Result<_>>()?;
    Ok(checked.into_iter().fold(Checked::default(), |a, b| Checked {
        shards: a.shards + b.shards,
        items: a.items + b.items,
        bytes: a.bytes + b.bytes,
    }))
}

fn shard((kind, path): &(Kind, PathBuf)) -> Result<Checked> {
    let reader = Reader::open(path)?;
    let tensors = kind.tensors().iter().map(|name| reader.bytes(name)).collect::<Result<Vec<_>>>()?;
    let (bytes, items) = (tensors.iter().map(|t| t.len()).sum(), kind.keys(&reader)?.len());
    if checksum(tensors) != reader.metadata::<Seal>()?.checksum {
        return Err(Error::file(path, "is not what was written (its checksum differs); delete it and encode again"));
    }
    Ok(Checked { shards: 1, items, bytes })
}
