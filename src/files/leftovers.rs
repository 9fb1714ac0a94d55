//! Temporary names, and what runs that were killed left under them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;
use std::{mem, process, thread};

use tempfile::{Builder, NamedTempFile, TempDir};

use super::CREATING;
use super::together::LIST;
use crate::error::{Error, Result};

/// How temporary names begin and end; the writing process's number stands between.
const PREFIX: &str = ".writing-";
const SUFFIX: &str = ".tmp";

/// A new file beside its destination. What killed runs left there is removed first.
pub fn temporary_file(folder: &Path) -> io::Result<NamedTempFile> {
    let temp = temporary(folder, 0o666, |builder| builder.tempfile_in(folder))?;
    // Held as long as it is open, as far as the file system can: see `remove`.
    let _ = temp.as_file().try_lock();
    Ok(temp)
}

/// A folder for what lives no longer than this, in a folder that is there.
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: TempDir,
    #[expect(dead_code, reason = "holds the folder, see `remove`")]
    held: File,
}

impl TemporaryFolder {
    /// A new one; what killed runs left beside it is removed first.
    pub fn within(folder: &Path) -> Result<TemporaryFolder> {
        let (folder, held) = temporary_folder(folder).map_err(Error::io(folder, "write into"))?;
        Ok(TemporaryFolder { folder, held })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a folder in it in the place of another one, beside it, or of none. A kill in between leaves none.
    pub fn hand_over(&self, name: &str, to: &Path) -> Result<()> {
        let old = self.path().join(format!("{name}.old"));
        if to.exists() {
            fs::rename(to, old).map_err(Error::io(to, "replace"))?;
        }
        fs::rename(self.path().join(name), to).map_err(Error::io(to, "write"))
    }
}

/// A new folder beside its destination, and what holds it.
pub(super) fn temporary_folder(folder: &Path) -> io::Result<(TempDir, File)> {
    let temp = temporary(folder, 0o777, |builder| builder.tempdir_in(folder))?;
    let held = File::open(temp.path())?;
    let _ = held.try_lock();
    Ok((temp, held))
}

/// Attempts at removing a folder into which others write, and the time between two.
const REMOVALS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// Removes a folder at the end of this process, into which other threads still write. No folder is created from here on, or theirs
/// would come again; a file that comes while the others are removed is removed by the next attempt.
pub(super) fn remove_for_good(folder: &Path) {
    mem::forget(CREATING.write().unwrap_or_else(PoisonError::into_inner));
    for _ in 0..REMOVALS {
        if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Whether a file's name is a temporary one.
pub(super) fn is_temporary(name: &str) -> bool {
    writer(name).is_some()
}

fn temporary<T>(folder: &Path, mode: u32, make: impl FnOnce(&Builder) -> io::Result<T>) -> io::Result<T> {
    sweep(folder);
    let prefix = format!("{PREFIX}{}-", process::id());
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    // Temporary files are private by default; what takes their place should follow the user's umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    make(&builder)
}

/// The process that writes under a temporary name.
fn writer(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split('-').next()?.parse().ok()
}

/// Removes what no living process writes, once for each folder.
fn sweep(folder: &Path) {
    static SWEPT: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    let first = SWEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_path_buf());
    // Without a list of processes nobody knows who lives; and what waits to be renamed is no left-over.
    if !first || !Path::new("/proc/self").exists() || folder.join(LIST).exists() {
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    let left = entries.flatten().filter(|entry| {
        let writer = entry.file_name().to_str().and_then(writer);
        writer.is_some_and(|pid| pid != process::id() && !Path::new("/proc").join(pid.to_string()).exists())
    });
    let removed = left.map(|entry| entry.path()).filter(|path| remove(path).is_ok()).count();
    if removed > 0 {
        tracing::warn!("{}: removed {removed} files that a run left which was killed while it wrote", folder.display());
    }
}

/// Removes a file or folder, unless somebody holds it: on a shared disk, a process of another machine.
fn remove(path: &Path) -> io::Result<()> {
    File::open(path)?.try_lock().map_err(|error| io::Error::other(error.to_string()))?;
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_lives_is_not() {
        let folder = tempfile::tempdir().unwrap();
        // No process has this number: it is above Linux's limit.
        let [dead, mine, other] =
            [".writing-4194999-a.tmp".into(), format!(".writing-{}-a.tmp", process::id()), ".writing-of-a-user".into()];
        for name in [&dead, &mine, &other] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::create_dir(folder.path().join(".writing-4194998-b.tmp")).unwrap();
        drop(temporary_file(folder.path()).unwrap());
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        let mut expected = [mine, other].map(std::ffi::OsString::from).to_vec();
        expected.sort();
        assert_eq!(left, expected);
    }
}
