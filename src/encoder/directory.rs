//! A Hugging Face model directory: its files and their fingerprint.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::device::MappedFile;
use crate::error::Result;

/// Tells one encoder's files from another's: a hash of their contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Hashes the given files of a folder, in order; those that do not exist count as empty.
    pub fn of(folder: &Path, names: &[&str]) -> Result<Fingerprint> {
        let mut hash = Xxh3::new();
        for name in names {
            let path = folder.join(name);
            let len = if path.exists() {
                let file = MappedFile::open(&path)?;
                hash.update(&file);
                file.len()
            } else {
                0
            };
            hash.update(&(len as u64).to_le_bytes());
        }
        Ok(Fingerprint(format!("{:032x}", hash.digest128())))
    }

    /// As hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
