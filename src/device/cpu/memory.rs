//! The machine's memory: how much is left, and how fast it is.

use std::time::Instant;

use rayon::prelude::*;

use super::{Buffer, vector};

/// Bytes that can be allocated without swapping, if the system says.
pub fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib * 1024)
}

/// Bytes per second at which all threads together read an array that no cache holds (512 MiB): the best of three turns.
pub fn read_bandwidth() -> f64 {
    const FLOATS: usize = 128 << 20;
    const PIECE: usize = 1 << 16;
    let mut array = Buffer::scratch(FLOATS);
    array.par_chunks_mut(PIECE).for_each(|piece| piece.fill(1.0));
    let turn = || {
        let start = Instant::now();
        let total: f32 = array.par_chunks(PIECE).map(|piece| simd!(vector::total4(piece))).sum();
        std::hint::black_box(total);
        (4 * FLOATS) as f64 / start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| turn()).fold(0.0, f64::max)
}
