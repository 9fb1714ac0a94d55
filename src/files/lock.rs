//! Folders and files that one process writes at a time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::create_folder;
use crate::error::{Error, Result};

/// A folder that no other process of this program writes as long as this is held.
#[derive(Debug)]
pub struct FolderLock {
    _handle: File,
    /// Folders that were made for it, the inner ones first.
    made: Vec<PathBuf>,
}

impl FolderLock {
    /// Takes a folder. See [`lock`].
    pub fn take(folder: &Path) -> Result<FolderLock> {
        FolderLock::free(folder)?.ok_or_else(|| taken(folder))
    }

    /// The same; `None` if another process has it.
    pub fn free(folder: &Path) -> Result<Option<FolderLock>> {
        loop {
            let handle = File::open(folder).map_err(Error::io(folder, "open"))?;
            if !is_free(&handle, folder) {
                return Ok(None);
            }
            // Who had it may have removed it, see `take_new`, when it was opened here and not locked yet.
            if is_at(&handle, folder) {
                return Ok(Some(FolderLock { _handle: handle, made: Vec::new() }));
            }
        }
    }

    /// Takes a folder for what is to be written in it, and makes it where it is not there. A folder that was made and is empty
    /// when this is dropped goes again: what was refused leaves nothing behind.
    pub fn take_new(folder: &Path) -> Result<FolderLock> {
        FolderLock::free_new(folder)?.ok_or_else(|| taken(folder))
    }

    /// The same; `None` if another process has it.
    pub fn free_new(folder: &Path) -> Result<Option<FolderLock>> {
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let made = folder.ancestors().take_while(missing).map(Path::to_path_buf).collect();
        create_folder(folder)?;
        let mut lock = FolderLock::free(folder)?;
        if let Some(lock) = &mut lock {
            lock.made = made;
        }
        Ok(lock)
    }
}

/// Whether this is what is at the path now.
fn is_at(handle: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    fs::metadata(path).is_ok_and(|there| handle.metadata().is_ok_and(|held| place(held) == place(there)))
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // One that holds something stays, and those around it.
        let _ = self.made.iter().try_for_each(fs::remove_dir);
    }
}

/// Takes the file or folder at a path for this process, until its handle is closed.
///
/// Fails if another process has it. Where the file system has no locks, says so and goes on.
pub fn lock(handle: &File, path: &Path) -> Result<()> {
    if is_free(handle, path) { Ok(()) } else { Err(taken(path)) }
}

/// Takes it as [`lock`] does, unless another process has it.
fn is_free(handle: &File, path: &Path) -> bool {
    match handle.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return false,
        Err(TryLockError::Error(error)) => {
            let path = path.display();
            tracing::warn!("{path}: its file system has no locks ({error}); see to it that nobody else writes there");
        }
    }
    true
}

fn taken(path: &Path) -> Error {
    let what = if path.is_dir() {
        "into it; wait for it to end, or choose another folder"
    } else {
        "it; wait for it to end, or choose another file"
    };
    Error::file(path, format!("another process of fissfuse is writing {what}"))
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

    #[test]
    fn a_folder_that_was_made_and_is_empty_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("mine")).unwrap();
        for (name, stays) in [("new", false), ("a/b/c", false), ("mine", true), ("mine/new", false)] {
            let held = FolderLock::take_new(&path(name)).unwrap();
            assert!(path(name).is_dir() && FolderLock::take(&path(name)).is_err());
            drop(held);
            assert_eq!(path(name).exists(), stays, "{name}");
        }
        assert!(!path("a").exists() && path("mine").exists());
        let held = FolderLock::take_new(&path("run/1")).unwrap();
        fs::write(path("run/1/x"), "kept").unwrap();
        drop(held);
        assert!(path("run/1/x").exists());
    }
}
