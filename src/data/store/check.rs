//! Comparing a store's contents with its checksums.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::manifest::MANIFEST;
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

/// Names of the files that a store is made of.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    let shards = [Kind::Text, Kind::Image].map(|kind| kind.shards(folder));
    let mut names = vec![MANIFEST.to_string()];
    for shards in shards {
        let name = |(_, path): (usize, PathBuf)| Some(path.file_name()?.to_str()?.to_string());
        names.extend(shards?.into_iter().filter_map(name));
    }
    Ok(names)
}

/// Tells a store from others by its manifest and the checksums in its shards' headers, which are all that is read.
pub fn fingerprint(folder: &Path) -> Result<String> {
    let manifest = serde_json::to_vec(&Manifest::read(folder)?).map_err(|e| Error::file(folder, e.to_string()))?;
    let mut parts = vec![manifest];
    for kind in [Kind::Text, Kind::Image] {
        for (number, path) in kind.shards(folder)? {
            let seal = Reader::open(&path)?.metadata::<Seal>()?;
            parts.push(format!("{} {number} {}", kind.name(), seal.checksum).into_bytes());
        }
    }
    Ok(checksum(parts.iter().map(Vec::as_slice)))
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
