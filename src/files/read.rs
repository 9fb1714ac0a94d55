//! Reading files whole, and what a user pipes up to a bound.

use std::fs::{self, File, FileType, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::foreign::no_text;

/// Most bytes of what is no regular file: it may have no end. Files of records of any dataset of the field are smaller.
const MOST_STREAMED: u64 = 512 << 20;

/// What stands at a path, which must be a regular file. Nothing is opened: a device may have no end, and a pipe nobody who
/// writes.
pub fn expect_regular(path: &Path) -> Result<Metadata> {
    let there = fs::metadata(path).map_err(Error::io(path, "read"))?;
    match there.is_file() {
        true => Ok(there),
        false => Err(Error::file(path, format!("is {}, and no regular file, as it must be", kind(there.file_type())))),
    }
}

/// Fails unless a folder that is to be read is there; `advice` says what to give.
pub fn expect_folder(path: &Path, advice: &str) -> Result<()> {
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(there) => Err(Error::file(path, format!("is {}, and no folder; {advice}", kind(there.file_type())))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Error::file(path, format!("there is no such folder; {advice}")))
        }
        Err(error) => Err(Error::io(path, "read")(error)),
    }
}

/// The file in a model's folder that says what it holds; `advice` says what to give where there is none.
pub fn config_of(folder: &Path, advice: &str) -> Result<PathBuf> {
    expect_folder(folder, advice)?;
    let path = folder.join("config.json");
    match path.exists() {
        true => Ok(path),
        false => Err(Error::file(folder, format!("has no config.json; {advice}"))),
    }
}

/// A regular file's bytes.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    expect_regular(path)?;
    fs::read(path).map_err(Error::io(path, "read"))
}

/// Reads a text file, which must be UTF-8. The mark that Python's "utf-8-sig" and Windows editors put in front is left out.
pub fn read_text(path: &Path) -> Result<String> {
    text(path, read(path)?)
}

/// The bytes of a file that a user names, which may be a pipe, such as a shell's `<(...)`, or standard input as well.
pub fn read_or_stream(path: &Path) -> Result<Vec<u8>> {
    read_up_to(path, MOST_STREAMED)
}

/// Like [`read_text`], of what [`read_or_stream`] reads.
pub fn read_text_or_stream(path: &Path) -> Result<String> {
    text(path, read_or_stream(path)?)
}

fn read_up_to(path: &Path, most: u64) -> Result<Vec<u8>> {
    let there = fs::metadata(path).map_err(Error::io(path, "read"))?;
    if there.is_file() || there.is_dir() {
        return read(path);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
    if bytes.len() as u64 > most {
        let kind = kind(there.file_type());
        return Err(Error::file(
            path,
            format!("is {kind} that gives more than {} MiB; name a file instead", most >> 20),
        ));
    }
    Ok(bytes)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    if let Some(advice) = no_text(&bytes) {
        return Err(Error::file(path, advice));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        Error::Record { path: path.to_path_buf(), line, reason: "is not UTF-8; convert the file to UTF-8".into() }
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text))
}

fn kind(of: FileType) -> &'static str {
    if of.is_dir() {
        "a folder"
    } else if of.is_file() {
        "a file"
    } else if of.is_fifo() {
        "a pipe"
    } else if of.is_socket() {
        "a socket"
    } else {
        "a device"
    }
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
    fn what_has_no_end_is_not_read_and_what_is_piped_is_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Nobody writes to it: whoever opened it would wait.
        for (path, says) in
            [(folder.path(), "is a folder"), (&pipe, "is a pipe"), (Path::new("/dev/zero"), "is a device")]
        {
            let error = read_text(path).unwrap_err().to_string();
            assert!(error.contains(says) && error.starts_with(path.to_str().unwrap()), "{error}");
        }
        assert!(read_or_stream(folder.path()).unwrap_err().to_string().contains("is a folder"));
        let piped = |bytes: usize, most: u64| {
            let (to, pipe) = (pipe.clone(), &pipe);
            let writer = std::thread::spawn(move || std::fs::write(to, vec![b'x'; bytes]).is_ok());
            let read = read_up_to(pipe, most);
            writer.join().unwrap();
            read.map(|bytes| bytes.len()).map_err(|e| e.to_string())
        };
        assert_eq!(piped(2 << 20, 2 << 20), Ok(2 << 20));
        assert!(piped((2 << 20) + 1, 2 << 20).unwrap_err().contains("is a pipe that gives more than 2 MiB"));
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
