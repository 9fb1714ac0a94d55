//! Folders and files that one process writes at a time.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// A folder that no other process of this program writes as long as this is held.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "the lock goes with its file")] File);

impl FolderLock {
    /// Takes a folder. See [`lock`].
    pub fn take(folder: &Path) -> Result<FolderLock> {
        let handle = File::open(folder).map_err(Error::io(folder, "open"))?;
        lock(&handle, folder)?;
        Ok(FolderLock(handle))
    }
}

/// Takes the file or folder at a path for this process, until its handle is closed.
///
/// Fails if another process has it. Where the file system has no locks, says so and goes on.
pub fn lock(handle: &File, path: &Path) -> Result<()> {
    match handle.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let what = if path.is_dir() {
                "into it; wait for it to end, or choose another folder"
            } else {
                "it; wait for it to end, or choose another file"
            };
            return Err(Error::file(path, format!("another process of fissfuse is writing {what}")));
        }
        Err(TryLockError::Error(error)) => {
            let path = path.display();
            tracing::warn!("{path}: its file system has no locks ({error}); see to it that nobody else writes there");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_processs_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        assert!(FolderLock::take(folder.path()).unwrap_err().to_string().contains("another process"));
        drop(held);
        FolderLock::take(folder.path()).unwrap();
        assert!(FolderLock::take(&folder.path().join("none")).is_err());
    }
}
