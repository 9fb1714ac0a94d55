//! Whether an output can be written where it is to go, asked before the work for it begins.

use std::fs;
use std::path::{Path, PathBuf};

use super::destination::Destination;
use super::write::folder_of;
use crate::error::{Error, Result};

/// Fails if no file can be written at a path: it is a folder or read-only, or none can be made in its folder, which need
/// not exist yet.
pub fn expect_file_at(path: &Path) -> Result<()> {
    match Destination::of(path)? {
        Destination::File(target) => expect_room_in(path, &folder_of(&target)),
        Destination::Stream(_) => Ok(()),
    }
}

/// Fails if a path is no folder that files can be written in, and none can be made there.
pub fn expect_folder_at(path: &Path) -> Result<()> {
    expect_room_in(path, path)
}

/// Whether what is written at a path goes through it to somebody else: a pipe, a terminal, a descriptor.
pub fn is_stream(path: &Path) -> Result<bool> {
    Destination::of(path).map(|destination| matches!(destination, Destination::Stream(_)))
}

/// Fails if so many bytes more have no room on the disk that a path is, or would be, on.
pub fn expect_room_for(path: &Path, bytes: u64) -> Result<()> {
    // Where the system does not say, writing will.
    let Ok(disk) = rustix::fs::statvfs(nearest(path).as_path()) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match bytes > free {
        true => Err(Error::file(
            path,
            format!("takes {}, of the disk {} are free; choose another one", gib(bytes), gib(free)),
        )),
        false => Ok(()),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// Fails if no file can be made in a folder, or where it would be made.
fn expect_room_in(path: &Path, folder: &Path) -> Result<()> {
    let there = nearest(folder);
    if !there.is_dir() {
        let reason = format!("cannot be written: {} is no folder; choose another name", there.display());
        return Err(Error::file(path, reason));
    }
    tempfile::tempfile_in(&there).map(drop).map_err(Error::io(path, "write"))
}

/// The path, or of what it lies in the nearest that exists.
fn nearest(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    found.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_known_before_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "").unwrap();
        for name in ["file", "new", "new/new", "."] {
            assert_eq!(expect_file_at(&path(name)).is_ok(), name != ".", "{name}");
            assert_eq!(expect_folder_at(&path(name)).is_ok(), name != "file", "{name}");
        }
        for expect in [expect_file_at, expect_folder_at] {
            assert!(expect(&path("file/new")).unwrap_err().to_string().contains("file/new"));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        expect_room_for(&path("new"), 1).unwrap();
        assert!(expect_room_for(&path("new"), u64::MAX).unwrap_err().to_string().contains("GiB are free"));
        assert!(is_stream(Path::new("/dev/stdout")).unwrap() && !is_stream(&path("new")).unwrap());
    }
}
