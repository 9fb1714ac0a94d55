//! A read-only memory-mapped file.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::bus_error::explain_bus_errors;
use crate::error::{Error, Result};
use crate::files;

/// The bytes of a file, paged in as they are touched.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the whole of `path`. Fails if it cannot be opened or is no regular file.
    pub fn open(path: &Path) -> Result<MappedFile> {
        files::expect_regular(path)?;
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        explain_bus_errors();
        // SAFETY: the mapping is read-only and private to this value. Files that the engine maps are written
        // under another name and renamed, never changed in place; a user who truncates one while it is mapped
        // ends the process, which names it.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
        Ok(MappedFile { path: path.to_path_buf(), map })
    }

    /// Where the bytes come from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
