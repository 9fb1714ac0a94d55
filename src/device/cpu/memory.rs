//! The machine's memory: how much is left, and how fast it is.

use std::time::Instant;

use memmap2::MmapMut;
use rayon::prelude::*;

use super::vector;
use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// Bytes that can be allocated without swapping, if the system says.
pub fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib * 1024)
}

/// Has the allocator keep what is freed for its next use, for programs to call first. A training step frees and takes the same
/// some thousand small arrays again and again; given back to the system, each page of them is a fault on its next use, which is
/// 3 % of a step of 16 mentions.
///
/// glibc keeps what is smaller than the largest block that was freed so far, up to 32 MiB (mallopt(3), `M_MMAP_THRESHOLD` and
/// `M_TRIM_THRESHOLD`): so one is, none of whose pages is touched. Other allocators are what they are.
pub fn keep_freed_memory() {
    drop(std::hint::black_box(vec![0u8; 31 << 20]));
}

/// Zeros in large pages where the system gives them: an array that is read from end to end again and again spares the walk
/// to a page's place every 4 KiB. Fails if there is no memory for it.
pub fn large_array(bytes: usize) -> Result<MmapMut> {
    let failed = |e: std::io::Error| Error::device("cpu", format!("allocating {}", Bytes::of(bytes)), e.to_string());
    let array = MmapMut::map_anon(bytes.max(1)).map_err(failed)?;
    // Advice: without large pages the array is the same.
    #[cfg(target_os = "linux")]
    let _ = array.advise(memmap2::Advice::HugePage);
    Ok(array)
}

/// Bytes per second at which all threads together read an array that no cache holds (512 MiB), in large pages where the
/// system gives them: the best of three turns. Fails if there is no memory for it.
pub fn read_bandwidth() -> Result<f64> {
    const BYTES: usize = 512 << 20;
    const PIECE: usize = 1 << 16;
    let mut array = large_array(BYTES)?;
    let array: &mut [f32] = bytemuck::cast_slice_mut(&mut array);
    array.par_chunks_mut(PIECE).for_each(|piece| piece.fill(1.0));
    let turn = || {
        let start = Instant::now();
        let total: f32 = array.par_chunks(PIECE).map(|piece| simd!(vector::total4(piece))).sum();
        std::hint::black_box(total);
        BYTES as f64 / start.elapsed().as_secs_f64()
    };
    Ok((0..3).map(|_| turn()).fold(0.0, f64::max))
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Page faults of this thread that took nothing from a disk.
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let behind_name = stat.rsplit(')').next().unwrap();
        behind_name.split_whitespace().nth(7).unwrap().parse().unwrap()
    }

    #[test]
    fn what_was_freed_is_there_again_without_faults() {
        keep_freed_memory();
        let take_and_free = || drop(std::hint::black_box(vec![1u8; 1 << 20]));
        take_and_free();
        let before = faults();
        (0..100).for_each(|_| take_and_free());
        // Each has 256 pages.
        assert!(faults() - before < 2 * 256, "{} faults", faults() - before);
    }
}
