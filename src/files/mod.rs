//! Files: read with words for what is wrong, written whole or not at all, in folders that one process writes at a time.

mod apart;
mod destination;
mod leftovers;
mod lock;
pub mod names;
mod read;
mod room;
mod together;
mod write;

use std::path::Path;
use std::sync::{PoisonError, RwLock};

pub use apart::{Named, keep_apart};
pub use leftovers::{TemporaryFolder, temporary_file};
pub use lock::{FolderLock, lock};
pub use read::{config_of, expect_folder, expect_regular, read, read_or_stream, read_text, read_text_or_stream};
pub use room::{expect_file_at, expect_folder_at, expect_room_for, is_stream};
pub use together::{complete, write_together};
pub use write::{write_folder_whole, write_new, write_whole, write_whole_at};

use crate::error::{Error, Result};

/// Shared by what creates folders; one that ends this process takes it for itself, see `leftovers::remove_for_good`.
static CREATING: RwLock<()> = RwLock::new(());

/// Creates a folder and those above it.
pub fn create_folder(path: &Path) -> Result<()> {
    let _shared = CREATING.read().unwrap_or_else(PoisonError::into_inner);
    std::fs::create_dir_all(path).map_err(Error::io(path, "create"))
}
