//! What stands where an output is to go.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where the bytes of an output go.
pub(super) enum Destination {
    /// A regular file, or none yet: it is replaced whole. Links were followed.
    File(PathBuf),
    /// A pipe, a terminal or another device, or what a descriptor of this process is: written to as it is.
    Stream(PathBuf),
}

/// Links that are followed, as Linux does.
const MOST_LINKS: usize = 40;

/// Names of this process's descriptors: what is behind them belongs to whoever opened it, and must not be replaced.
const DESCRIPTORS: [&str; 5] = ["/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/self/fd/", "/proc/thread-self/fd/"];

impl Destination {
    /// Looks at what stands at a path. Fails if it is a folder, or a file that must not be changed.
    pub fn of(path: &Path) -> Result<Destination> {
        if DESCRIPTORS.iter().any(|name| path.to_str().is_some_and(|path| path.starts_with(name))) {
            return Ok(Destination::Stream(path.to_path_buf()));
        }
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(Error::file(path, "is a folder; name a file in it")),
            Ok(there) if !there.is_file() => Ok(Destination::Stream(path.to_path_buf())),
            Ok(there) => Self::to_replace(path, &there),
            Err(error) if error.kind() == ErrorKind::NotFound => followed(path).map(Destination::File),
            Err(error) => Err(Error::io(path, "look at")(error)),
        }
    }

    fn to_replace(path: &Path, there: &Metadata) -> Result<Destination> {
        if there.permissions().readonly() {
            return Err(Error::file(path, "is read-only; make it writable (chmod u+w), or choose another name"));
        }
        fs::canonicalize(path).map(Destination::File).map_err(Error::io(path, "look at"))
    }
}

/// The file that a path names which is not there yet: links may lead to it.
fn followed(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else { return Ok(path) };
        // A relative target counts from the link's folder.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(Error::file(path, "is a circle of links"))
}
