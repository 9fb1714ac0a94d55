//! `max_pool` with gradients on CUDA devices (kernels/windows.cu).

use super::{MaxPool, NAME};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Target};
use crate::error::Result;
use crate::ops::convolution::windows::launch;
use crate::tensor::Tensor;

/// The pixel of each maximum, and how many pixels there are.
pub struct Saved {
    at: DeviceBuffer<u32>,
    pixels: usize,
}

impl MaxPool {
    pub(super) fn forward_on(
        &self,
        gpu: &Gpu,
        x: &Tensor,
        [windows, channels]: [usize; 2],
    ) -> Result<(DeviceBuffer<f32>, Saved)> {
        let (out, at) = (gpu.alloc(NAME, windows * channels)?, gpu.alloc(NAME, windows * channels)?);
        let places = (x.ptr(), Target { at: out.ptr(), adds: false }, at.ptr());
        launch(gpu, "windows_max", (self.windows, channels), windows, places)?;
        Ok((out, Saved { at, pixels: x.shape()[0] }))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: Saved, grad: &Tensor, dx: Target) -> Result<()> {
        if dx.is_null() {
            return Ok(());
        }
        let (of, places) = ((self.windows, grad.shape()[1]), (grad.ptr(), dx, saved.at.ptr()));
        launch(gpu, "windows_max_backward", of, saved.pixels, places)
    }
}
