//! Checksums of whole files.

use std::borrow::Cow;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

/// Metadata with a checksum of itself and of all tensors. It takes the place of the bare metadata, so that no bit that tells
/// one from the other can be lost unseen: neither is the other's JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed<'a> {
    pub xxh3: Cow<'a, str>,
    #[serde(borrow)]
    pub header: &'a RawValue,
}

/// A hash of the metadata and of every tensor's name, type, shape and bytes, in the order of their names.
pub(super) fn seal<'a>(header: &str, tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize], &'a [u8])>) -> String {
    let mut hash = Xxh3::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(header.as_bytes());
    for (name, dtype, shape, bytes) in tensors {
        part(name.as_bytes());
        part(format!("{dtype:?} {shape:?}").as_bytes());
        part(bytes);
    }
    format!("{:032x}", hash.digest128())
}
