//! Files: read with words for what is wrong, written whole or not at all, in folders that one process writes at a time.

mod destination;
mod leftovers;
mod lock;
mod together;
mod write;

use std::path::Path;

pub use lock::{FolderLock, lock};
pub use together::{complete, write_together};
pub use write::{write_folder_whole, write_new, write_whole, write_whole_at};

use crate::error::{Error, Result};
use crate::foreign::no_text;

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
