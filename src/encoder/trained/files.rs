//! The files that stand beside an encoder's weights.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use crate::error::Result;
use crate::files;

/// Names and bytes, which are written as they were read.
pub(in crate::encoder) struct Beside(Vec<(&'static str, Vec<u8>)>);

impl Beside {
    /// Of these bytes. The last name should be that of the configuration, so that a directory that was cut short has none.
    pub fn new(files: Vec<(&'static str, Vec<u8>)>) -> Beside {
        Beside(files)
    }

    /// Those of these names that a directory has.
    pub fn read(folder: &Path, names: &[&'static str]) -> Result<Beside> {
        let there = names.iter().filter(|name| folder.join(name).exists());
        there.map(|name| Ok((*name, files::read(&folder.join(name))?))).collect::<Result<_>>().map(Beside)
    }

    /// A checksum of all.
    pub fn checksum(&self) -> String {
        let mut hash = Xxh3::new();
        for (name, bytes) in &self.0 {
            hash.update(name.as_bytes());
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        format!("{:032x}", hash.digest128())
    }

    /// Writes a directory with the weights that `weights` writes to a file of this name, whole or not at all.
    pub fn write(&self, folder: &Path, name: &str, weights: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        files::write_folder_whole(folder, |temp| {
            weights(&temp.join(name))?;
            self.0.iter().try_for_each(|(name, bytes)| files::write_new(&temp.join(name), bytes))
        })
    }
}
