//! Arrays of row numbers and offsets.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};

/// An immutable array of numbers that is copied to a device when first needed there. Cloning shares both.
#[derive(Clone, Debug)]
pub struct Indices(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    values: Vec<u32>,
    on_device: OnceLock<DeviceBuffer<u32>>,
}

impl Indices {
    /// Where the numbers lie on this device; they stay there as long as the array lives.
    pub fn on(&self, gpu: &Gpu) -> Result<Ptr> {
        let buffer = match self.0.on_device.get() {
            Some(buffer) => buffer,
            None => {
                let copy = gpu.upload("row numbers", &self.0.values)?;
                self.0.on_device.get_or_init(|| copy)
            }
        };
        if !buffer.gpu().is(gpu) {
            return Err(Error::shape(
                "indices",
                format!("lie on {:?}, needed on {gpu:?} or by another stream", buffer.gpu()),
            ));
        }
        Ok(buffer.ptr())
    }
}

impl From<Vec<u32>> for Indices {
    fn from(values: Vec<u32>) -> Indices {
        Indices(Arc::new(Inner { values, on_device: OnceLock::new() }))
    }
}

impl FromIterator<u32> for Indices {
    fn from_iter<I: IntoIterator<Item = u32>>(values: I) -> Indices {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Indices {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.0.values
    }
}
