//! What a device does at most.

use serde::{Deserialize, Serialize};

/// What a device does at most, as it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// FLOPs per second: of a GPU bf16 tensor cores with f32 sums, of a CPU products of f32.
    pub flops_per_second: f64,
    /// Bytes per second: of a GPU copied within its memory (read and written), of a CPU read from memory.
    pub bytes_per_second: f64,
}

impl Ceilings {
    /// FLOPs per second that are within reach at an intensity (FLOPs per byte): the roofline.
    pub fn attainable(&self, intensity: f64) -> f64 {
        self.flops_per_second.min(intensity * self.bytes_per_second)
    }

    /// Seconds that so many FLOPs and bytes take at least.
    pub fn least_seconds(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops_per_second).max(bytes / self.bytes_per_second)
    }
}
