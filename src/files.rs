//! Files that are written whole or not at all.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::foreign::no_text;

/// Writes a file under a temporary name beside `path`, flushes it to disk and renames it. Whatever goes wrong
/// (a full disk, a kill), `path` holds its old content or the new one, never a part.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    replace(path, |temp| {
        let mut out = BufWriter::new(temp.as_file_mut());
        fill(&mut out)?;
        out.flush()
    })
}

/// Like [`write_whole`], for a writer that opens the file itself.
pub fn write_whole_at(path: &Path, fill: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    replace(path, |temp| fill(temp.path()))
}

fn replace(path: &Path, fill: impl FnOnce(&mut NamedTempFile) -> std::io::Result<()>) -> Result<()> {
    let folder = folder_of(path);
    create_folder(&folder)?;
    let mut temp = temp_in(&folder).map_err(Error::io(path, "create"))?;
    fill(&mut temp).and_then(|()| temp.as_file().sync_all()).map_err(Error::io(path, "write"))?;
    temp.persist(path).map_err(|e| Error::io(path, "write")(e.error))?;
    // The rename itself reaches the disk with the folder.
    if let Ok(handle) = std::fs::File::open(&folder) {
        handle.sync_all().map_err(Error::io(path, "write"))?;
    }
    Ok(())
}

fn temp_in(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-").suffix(".tmp");
    // Temporary files are private by default; what takes their place should follow the user's umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Writes one of many small files whose loss a crash may cause: renamed into place, but not flushed to disk.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    create_folder(&folder)?;
    let mut temp = temp_in(&folder).map_err(Error::io(path, "create"))?;
    temp.write_all(bytes).map_err(Error::io(path, "write"))?;
    temp.persist(path).map_err(|e| Error::io(path, "write")(e.error))?;
    Ok(())
}

/// Fills a folder under a temporary name beside `path` and renames it: `path` holds all of it or does not exist. A
/// folder that exists and is not empty is refused.
pub fn write_folder_whole<T>(path: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let occupied = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    };
    if occupied {
        return Err(Error::file(path, "exists already; choose another folder, or remove it first"));
    }
    let beside = folder_of(path);
    create_folder(&beside)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-").suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let temp = builder.tempdir_in(&beside).map_err(Error::io(path, "create"))?;
    let filled = fill(temp.path())?;
    std::fs::rename(temp.path(), path).map_err(Error::io(path, "write"))?;
    Ok(filled)
}

/// Replaces several files: all are written under temporary names first, then all are renamed.
pub fn write_together(files: Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    let mut staged = Vec::with_capacity(files.len());
    for (path, bytes) in files {
        let mut temp = temp_in(&folder_of(&path)).map_err(Error::io(&path, "create"))?;
        temp.write_all(&bytes).and_then(|()| temp.as_file().sync_all()).map_err(Error::io(&path, "write"))?;
        staged.push((path, temp));
    }
    staged
        .into_iter()
        .try_for_each(|(path, temp)| temp.persist(&path).map(|_| ()).map_err(|e| Error::io(&path, "write")(e.error)))
}

/// Creates a folder and those above it.
pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io(path, "create"))
}

/// Reads a text file, which must be UTF-8. The mark that Python's "utf-8-sig" and Windows editors put in front is left out.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    if let Some(advice) = no_text(&bytes) {
        return Err(Error::file(path, advice));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        Error::Record { path: path.to_path_buf(), line, reason: "is not UTF-8; convert the file to UTF-8".into() }
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
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
    fn files_that_belong_together_change_together() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&a, "old").unwrap();
        let missing = folder.path().join("nowhere/c");
        assert!(write_together(vec![(a.clone(), b"new".to_vec()), (missing, Vec::new())]).is_err());
        assert_eq!(std::fs::read(&a).unwrap(), b"old");
        write_together(vec![(a.clone(), b"new".to_vec()), (b.clone(), b"b".to_vec())]).unwrap();
        assert_eq!((std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap()), (b"new".to_vec(), b"b".to_vec()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        std::fs::write(&path, b"fine\n\xff\n").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("t:2:"));
    }

    #[test]
    fn what_is_no_text_is_named_and_a_mark_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path).map_err(|e| e.to_string())
        };
        for (bytes, says) in [
            (&b"\x89HDF\r\n\x1a\n..."[..], "HDF5"),
            (b"\x93NUMPY\x01", "drin-wikimel"),
            (b"PK\x03\x04", "unzip"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x80\x04", "pickle"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"\xfe\xff\0{", "UTF-16"),
            (b"{\0\"\0", "UTF-16"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains("x.json") && error.contains(says), "{error}");
        }
        assert_eq!(read("\u{feff}{}".as_bytes()).as_deref(), Ok("{}"));
    }
}
