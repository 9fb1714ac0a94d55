//! `dropout` on CUDA devices (kernels/dropout.cu).

use bytemuck::{Pod, Zeroable};

use super::Dropout;
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr};
use crate::error::Result;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    x: Ptr,
    out: Ptr,
    length: i64,
    key: [u32; 2],
    stream: [u32; 2],
    threshold: u32,
    scale: f32,
}

impl Dropout {
    /// out += x, masked and scaled.
    pub(super) fn add_masked_on(&self, gpu: &Gpu, x: Ptr, length: usize, out: Ptr) -> Result<()> {
        let args = Args {
            x,
            out,
            length: length as i64,
            key: [self.seed as u32, (self.seed >> 32) as u32],
            stream: [self.stream.0, self.stream.1],
            threshold: self.threshold(),
            scale: self.scale(),
        };
        gpu.launch("dropout", Grid::values(length.div_ceil(4), 256), &args)
    }
}
