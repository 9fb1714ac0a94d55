//! Where an import may take files from: published files name others, and an archive may hold links.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The source folder and the folders that the user names.
#[derive(Debug)]
pub struct Bounds {
    /// Absolute and without links.
    roots: Vec<PathBuf>,
    anywhere: bool,
}

impl Bounds {
    /// Files in these folders, of which some may not exist, and at a place that is absolute and taken as it is written, no
    /// link by its name followed; with `anywhere`, all files.
    pub fn new<'a>(folders: impl IntoIterator<Item = &'a Path>, beside: Option<PathBuf>, anywhere: bool) -> Bounds {
        let roots = folders.into_iter().filter_map(|folder| folder.canonicalize().ok());
        Bounds { roots: roots.chain(beside).collect(), anywhere }
    }

    /// Whether a file that exists lies within, wherever the links on its path lead.
    pub fn hold(&self, path: &Path) -> bool {
        self.anywhere || path.canonicalize().is_ok_and(|path| self.roots.iter().any(|root| path.starts_with(root)))
    }

    /// Fails if a file lies outside.
    pub fn check(&self, path: &Path) -> Result<()> {
        if self.hold(path) { Ok(()) } else { Err(outside(path)) }
    }
}

/// The error about a file that lies outside.
pub fn outside(path: &Path) -> Error {
    let target = path.canonicalize().ok().map(|target| format!(" ({})", target.display())).unwrap_or_default();
    let reason = format!(
        "leads out of the source folder{target}: give its folder by --mention-images or --entity-images, or \
         --allow-outside if the source is to be trusted"
    );
    Error::file(path, reason)
}
