//! What the processor does at most.

use std::time::Instant;

use crate::device::cpu::has_bf16;

/// Rounds of each thread: some milliseconds.
#[cfg(target_arch = "x86_64")]
const ROUNDS: usize = 1 << 19;

/// FLOPs per second of bf16 dot products on registers alone, all threads at once: the best of some turns. `None` where
/// the processor has no such instructions.
pub fn bf16_ceiling(turns: usize) -> Option<f64> {
    has_bf16().then(|| (0..turns).map(|_| turn()).fold(0.0, f64::max))
}

#[cfg(target_arch = "x86_64")]
fn turn() -> f64 {
    use super::avx512::{SPIN_FLOPS, spin};
    let start = Instant::now();
    // SAFETY: `has_bf16` says that the processor has the instructions.
    rayon::broadcast(|_| std::hint::black_box(unsafe { spin(std::hint::black_box(ROUNDS)) }));
    (rayon::current_num_threads() * ROUNDS * SPIN_FLOPS) as f64 / start.elapsed().as_secs_f64()
}

#[cfg(not(target_arch = "x86_64"))]
fn turn() -> f64 {
    0.0
}
