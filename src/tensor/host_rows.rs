//! Activations of a decoder in the host's memory.

use crate::device::cpu::Buffer;

/// Activations (n, width).
pub struct HostRows {
    /// Row by row.
    pub values: Buffer,
    /// Values of a row.
    pub width: usize,
}

impl HostRows {
    /// Rows of any values, to be written in full before they are read.
    pub fn scratch(rows: usize, width: usize) -> HostRows {
        HostRows { values: Buffer::scratch(rows * width), width }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.values.len() / self.width
    }
}
