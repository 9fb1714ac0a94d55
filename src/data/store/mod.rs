//! The feature store: a folder of safetensors shards that are memory-mapped (docs/data.md).
//!
//! `manifest.json` says which encoders wrote it and how. `text-*.safetensors` hold `text.tokens` f16 (Σ lengths,
//! width), `image-*.safetensors` hold `image.patches` f16 (n, patches, width); beside them lie, under `text.` or
//! `image.`, `offsets` u64 (n + 1), `global` f16 (n, width), `keys` u64 (n, 2) and `stamps` u64 (n, 2), the size and
//! time of an image's file. A key is the hash of a text or of an image's path, so that each is stored once however
//! often it is used; a later shard's entry replaces an earlier one. A shard's header holds the manifest and a checksum of
//! its tensors, which [`check`] compares; opening a store reads keys and offsets only.

mod check;
mod joining;
mod manifest;
mod reader;
mod writer;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub use check::{Checked, check, files, fingerprint};
pub use joining::{Joined, join};
pub use manifest::{Manifest, MissingImage};
pub use reader::FeatureStore;
pub use writer::{Stamp, StoreWriter, stamp_of};

use crate::error::{Error, Result};
use crate::model::Widths;
use crate::tensor::safetensors::Reader;

/// Key of a text in the store.
pub fn text_key(text: &str) -> u128 {
    xxh3_128(text.as_bytes())
}

/// Key of an image in the store: of its path in the dataset, or of the stand-in for images that are missing.
pub fn image_key(path: Option<&str>) -> u128 {
    match path {
        Some(path) => xxh3_128(path.as_bytes()),
        None => xxh3_128(b"\0missing image"),
    }
}

/// What a shard's header says.
#[derive(Serialize, Deserialize)]
struct Seal {
    /// How its features were made.
    manifest: Manifest,
    /// [`checksum`] of its tensors.
    checksum: String,
}

/// A hash of the contents of a shard's tensors, in the order of [`Kind::tensors`].
fn checksum<'a>(tensors: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Xxh3::new();
    for bytes in tensors {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    format!("{:032x}", hash.digest128())
}

/// What a shard holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Texts and their tokens.
    Text,
    /// Images and their patches.
    Image,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Image => "image",
        }
    }

    /// Name of the tensor of token or patch states.
    fn tokens(self) -> &'static str {
        match self {
            Kind::Text => "text.tokens",
            Kind::Image => "image.patches",
        }
    }

    /// Name of another tensor of this kind.
    fn tensor(self, part: &str) -> String {
        format!("{}.{part}", self.name())
    }

    /// Widths of tokens and of the global vector.
    fn widths(self, widths: Widths) -> (usize, usize) {
        match self {
            Kind::Text => (widths.text, widths.text_global),
            Kind::Image => (widths.image, widths.image_global),
        }
    }

    /// Shards of this kind with their numbers, in rising order.
    fn shards(self, folder: &Path) -> Result<Vec<(usize, PathBuf)>> {
        let number = |path: &Path| {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix(self.name())?.strip_prefix('-')?.strip_suffix(".safetensors")?.parse().ok()
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
            let path = entry.map_err(Error::io(folder, "read"))?.path();
            found.extend(number(&path).map(|n: usize| (n, path)));
        }
        found.sort();
        Ok(found)
    }

    /// Path of a shard.
    fn shard(self, folder: &Path, number: usize) -> PathBuf {
        folder.join(format!("{}-{number:05}.safetensors", self.name()))
    }

    /// Names of all tensors of a shard.
    fn tensors(self) -> [String; 5] {
        let part = |name: &str| self.tensor(name);
        [self.tokens().to_string(), part("global"), part("offsets"), part("keys"), part("stamps")]
    }

    fn keys(self, reader: &Reader) -> Result<Vec<u128>> {
        let halves = reader.values::<u64>(&self.tensor("keys"))?;
        Ok(halves.chunks_exact(2).map(|k| (k[0] as u128) << 64 | k[1] as u128).collect())
    }
}
