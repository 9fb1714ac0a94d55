//! Files and folders that are written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::NamedTempFile;

use super::create_folder;
use super::destination::Destination;
use super::leftovers::{remove_for_good, temporary_file, temporary_folder};
use crate::error::{Error, Result};
use crate::interrupt;

/// Writes a file under a temporary name beside `path`, flushes it to disk and renames it. Whatever goes wrong
/// (a full disk, a kill), `path` holds its old content or the new one, never a part.
///
/// Links are followed; what is no regular file (a pipe, a device) is written to as it is, and a read-only file is refused.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    match Destination::of(path)? {
        Destination::File(target) => replace(path, &target, true, |temp| {
            let mut out = BufWriter::new(temp.as_file_mut());
            fill(&mut out)?;
            out.flush()
        }),
        Destination::Stream(stream) => {
            // Behind what is there: a descriptor may lead to a file that has content, and to which others write.
            let file = OpenOptions::new().append(true).open(&stream).map_err(Error::io(path, "open"))?;
            let mut out = BufWriter::new(file);
            fill(&mut out).and_then(|()| out.flush()).map_err(Error::io(path, "write"))
        }
    }
}

/// Like [`write_whole`], for a writer that opens the file itself.
pub fn write_whole_at(path: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    match Destination::of(path)? {
        Destination::File(target) => replace(path, &target, true, |temp| fill(temp.path())),
        Destination::Stream(_) => {
            let temp = NamedTempFile::new().map_err(Error::io(std::env::temp_dir(), "create"))?;
            fill(temp.path()).map_err(Error::io(path, "write"))?;
            write_whole(path, |out| io::copy(&mut File::open(temp.path())?, out).map(drop))
        }
    }
}

/// Writes one of many small files whose loss a crash may cause: renamed into place, but not flushed to disk.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    match Destination::of(path)? {
        Destination::File(target) => replace(path, &target, false, |temp| temp.write_all(bytes)),
        Destination::Stream(_) => write_whole(path, |out| out.write_all(bytes)),
    }
}

/// Puts a new file in the place of `target`, which the user calls `path`.
fn replace(
    path: &Path,
    target: &Path,
    flush: bool,
    fill: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> Result<()> {
    let folder = folder_of(target);
    create_folder(&folder)?;
    let mut temp = temporary_file(&folder).map_err(Error::io(path, "create"))?;
    let flushed = |temp: &NamedTempFile| if flush { temp.as_file().sync_all() } else { Ok(()) };
    fill(&mut temp).and_then(|()| flushed(&temp)).map_err(Error::io(path, "write"))?;
    temp.persist(target).map_err(|e| Error::io(path, "write")(e.error))?;
    if flush { flush_folder(&folder) } else { Ok(()) }
}

/// Flushes a folder's names to disk, among them what was renamed in it.
pub(super) fn flush_folder(folder: &Path) -> Result<()> {
    // A folder that cannot be opened is flushed when the system likes.
    File::open(folder).map_or(Ok(()), |handle| handle.sync_all().map_err(Error::io(folder, "write")))
}

/// The folder that a file lies in.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Flushes all that is in a folder to disk, and its names.
fn flush_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
        match entry? {
            kind if kind.is_dir() => flush_all(&path)?,
            kind if kind.is_file() => File::open(&path)?.sync_all()?,
            _ => {}
        }
    }
    // As in `flush_folder`.
    File::open(folder).map_or(Ok(()), |handle| handle.sync_all())
}

/// Fills a folder under a temporary name beside `path`, flushes all of it to disk and renames it: `path` holds all of it or does
/// not exist. A folder that exists and is not empty is refused. Where a signal ends this process meanwhile, nothing is left of it.
pub fn write_folder_whole<T>(path: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let occupied = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    };
    if occupied {
        return Err(Error::file(path, "exists already; choose another folder, or remove it first"));
    }
    let beside = folder_of(path);
    create_folder(&beside)?;
    let (temp, _held) = temporary_folder(&beside).map_err(Error::io(path, "create"))?;
    let left = temp.path().to_path_buf();
    // It is removed or renamed, never both: whoever removes it keeps this until the process has ended.
    let fate = Arc::new(Mutex::new(()));
    let ending = fate.clone();
    let _watch = interrupt::before_the_end(move || {
        mem::forget(ending.lock().unwrap_or_else(PoisonError::into_inner));
        remove_for_good(&left);
    })?;
    let filled = fill(temp.path())?;
    flush_all(temp.path()).map_err(Error::io(path, "write"))?;
    let _renaming = fate.lock().unwrap_or_else(PoisonError::into_inner);
    fs::rename(temp.path(), path).map_err(Error::io(path, "write"))?;
    flush_folder(&beside)?;
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.txt");
        write_whole(&path, |out| out.write_all(b"old")).unwrap();
        let failed = write_whole(&path, |out| {
            out.write_all(b"new")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let fill = |fails: bool| {
            write_folder_whole(&path, |temp| {
                write_new(&temp.join("x"), b"1")?;
                if fails { Err(Error::invalid("stopped")) } else { Ok(()) }
            })
        };
        assert!(fill(true).is_err());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        fill(false).unwrap();
        assert_eq!(std::fs::read(path.join("x")).unwrap(), b"1");
        assert!(fill(false).unwrap_err().to_string().contains("exists already"));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn links_are_followed_and_nothing_but_regular_files_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("real")).unwrap();
        fs::write(path("real/old.json"), "old").unwrap();
        for (link, target) in [("link", "real/old.json"), ("dangling", "real/new.json"), ("circle", "circle")] {
            std::os::unix::fs::symlink(target, path(link)).unwrap();
        }
        let write = |name: &str| write_whole(&path(name), |out| out.write_all(b"new")).map_err(|e| e.to_string());
        write("link").unwrap();
        write("dangling").unwrap();
        for (link, target) in [("link", "real/old.json"), ("dangling", "real/new.json")] {
            assert!(path(link).is_symlink());
            assert_eq!(fs::read(path(target)).unwrap(), b"new");
        }
        assert!(write("circle").is_err());
        assert!(write("real").unwrap_err().contains("is a folder"));
        fs::write(path("fixed"), "old").unwrap();
        fs::set_permissions(path("fixed"), std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        assert!(write("fixed").unwrap_err().contains("read-only"));
        assert_eq!(fs::read(path("fixed")).unwrap(), b"old");
        write_whole(Path::new("/dev/null"), |out| out.write_all(b"new")).unwrap();
        write_new(Path::new("/dev/null"), b"new").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn pipes_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write_whole_at(&pipe, |file| fs::write(file, "through")).unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
    }
}
