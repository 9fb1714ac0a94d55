//! A read-only memory-mapped file.

use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};

use std::sync::Once;

use signal_hook::consts::SIGBUS;
use signal_hook::low_level;

use crate::error::{Error, Result};
use crate::files;

/// The bytes of a file, paged in as they are touched.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the whole of `path`. Fails if it cannot be opened or is no regular file.
    pub fn open(path: &Path) -> Result<MappedFile> {
        files::expect_regular(path)?;
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        explain_bus_errors();
        // SAFETY: the mapping is read-only and private to this value. Files that the engine maps are written
        // under another name and renamed, never changed in place; a user who truncates one while it is mapped
        // ends the process, which says why.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
        Ok(MappedFile { path: path.to_path_buf(), map })
    }

    /// Where the bytes come from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// From now on a read behind the end of a file that was cut short while it was mapped ends the process with a message.
fn explain_bus_errors() {
    const MESSAGE: &[u8] =
        b"error: a mapped file was cut short, or its disk failed, while it was read: a feature store or a model \
                             that is in use must not be written over; write it again, then start again\n";
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: 2 is standard error for as long as the process lives; it is never closed through this value.
        let stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(2) });
        let explain = move || {
            let _ = (&*stderr).write_all(MESSAGE);
            low_level::exit(1);
        };
        // SAFETY: the handler makes two system calls, write and _exit; it neither allocates, locks nor panics.
        let registered = unsafe { low_level::register(SIGBUS, explain) };
        if let Err(error) = registered {
            tracing::debug!("a mapped file that is cut short will end the process without a message: {error}");
        }
    });
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
