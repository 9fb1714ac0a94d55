//! Arrays of row numbers and offsets.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};

/// Arrays that are copied together begin at multiples of so many numbers: 64 bytes.
const APART: usize = 16;

/// An immutable array of numbers that is copied to a device when first needed there. Cloning shares both.
#[derive(Clone, Debug)]
pub struct Indices(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    values: Vec<u32>,
    /// Whether they are 0, 1, 2, ..., which each device holds once for all.
    counting: bool,
    on_device: OnceLock<Place>,
}

/// Where an array lies on a device, perhaps among others.
#[derive(Debug)]
struct Place {
    array: Arc<DeviceBuffer<u32>>,
    first: usize,
}

impl Indices {
    /// 0, 1, ..., n - 1. It costs devices no copy of its own.
    pub fn counting(n: usize) -> Indices {
        let values = (0..n as u32).collect();
        Indices(Arc::new(Inner { values, counting: true, on_device: OnceLock::new() }))
    }

    /// Starts copying those of the arrays that the device does not have yet: through one block of page-locked memory, by one
    /// copy, while the device computes.
    pub fn stage(arrays: &[&Indices], gpu: &Gpu) -> Result<()> {
        let missing = |array: &&&Indices| !array.0.counting && array.0.on_device.get().is_none();
        let (mut places, mut end) = (Vec::new(), 0);
        for array in arrays.iter().filter(missing) {
            places.push((*array, end));
            end = (end + array.len()).next_multiple_of(APART);
        }
        if places.is_empty() {
            return Ok(());
        }
        let block = gpu.stage("row numbers", end, |block: &mut [u32]| {
            for (array, first) in &places {
                block[*first..first + array.len()].copy_from_slice(array);
            }
        })?;
        let block = Arc::new(block);
        for (array, first) in places {
            array.0.on_device.get_or_init(|| Place { array: block.clone(), first });
        }
        Ok(())
    }

    /// Where kernels that are queued from now on find the numbers on this device; they stay there as long as the array lives.
    pub fn on(&self, gpu: &Gpu) -> Result<Ptr> {
        if self.0.counting {
            return gpu.counting(self.len());
        }
        let place = match self.0.on_device.get() {
            Some(place) => place,
            None => {
                let array = Arc::new(gpu.upload("row numbers", &self.0.values)?);
                self.0.on_device.get_or_init(|| Place { array, first: 0 })
            }
        };
        if !place.array.gpu().is(gpu) {
            return Err(Error::shape(
                "indices",
                format!("lie on {:?}, needed on {gpu:?} or by another stream", place.array.gpu()),
            ));
        }
        place.array.arrive()?;
        Ok(place.array.ptr().offset::<u32>(place.first))
    }
}

impl From<Vec<u32>> for Indices {
    fn from(values: Vec<u32>) -> Indices {
        Indices(Arc::new(Inner { values, counting: false, on_device: OnceLock::new() }))
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
