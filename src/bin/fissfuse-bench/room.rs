//! Whether what a row works on has room, before any of it is made.

use std::path::Path;

use anyhow::bail;
use fissfuse::bytes::Bytes;
use fissfuse::device::cpu::available_memory;
use fissfuse::files;

/// Bytes of so many things of so many parts and so on; the most there are where that is more.
fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |bytes: u64, &factor| bytes.saturating_mul(factor as u64))
}

/// Fails if what these options ask for takes more memory, in bytes the product of `factors`, than is free.
pub fn expect_memory(options: &str, factors: &[usize]) -> anyhow::Result<()> {
    let needed = product(factors);
    match available_memory().unwrap_or(isize::MAX as usize) as u64 {
        free if needed > free => bail!("{options}: takes {} at least, {} are free", Bytes(needed), Bytes(free)),
        _ => Ok(()),
    }
}

/// The same of a folder's disk.
pub fn expect_disk(options: &str, folder: &Path, factors: &[usize]) -> anyhow::Result<()> {
    files::expect_room_for(folder, product(factors)).map_err(|error| anyhow::anyhow!("{options}: {error}"))
}
