//! `dropout` on CUDA devices (kernels/dropout.cu).

use bytemuck::{Pod, Zeroable};

use super::Dropout;
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::Result;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    x: Ptr,
    out: Ptr,
    places: Ptr,
    length: i64,
    width: i64,
    key: [u32; 2],
    stream: [u32; 2],
    threshold: u32,
    scale: f32,
    adds: i32,
    padding: i32,
}

impl Dropout {
    /// x, masked and scaled; in rows of this width.
    pub(super) fn masked_on(&self, gpu: &Gpu, (x, width): (Ptr, usize), length: usize, out: Target) -> Result<()> {
        let args = Args {
            x,
            out: out.at,
            places: self.places.as_ref().map_or(Ok(Ptr::NULL), |places| places.on(gpu))?,
            length: length as i64,
            width: width as i64,
            key: [self.seed as u32, (self.seed >> 32) as u32],
            stream: [self.stream.0, self.stream.1],
            threshold: self.threshold(),
            scale: self.scale(),
            adds: out.adds as i32,
            padding: 0,
        };
        gpu.launch("dropout", Grid::values(length.div_ceil(4), 256), &args)
    }
}
