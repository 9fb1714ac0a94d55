//! Values that the host will want, but not yet.

use super::{Storage, Tensor};
use crate::device::cuda::Returning;
use crate::error::Result;

/// The values of a tensor, on the host or on their way there.
#[derive(Debug)]
pub struct Later(Values);

#[derive(Debug)]
enum Values {
    Here(Tensor),
    Returning(Returning<f32>),
}

impl Tensor {
    /// The values as they are when everything that was queued before is done; the host goes on meanwhile.
    pub fn later(self) -> Result<Later> {
        Ok(Later(match &self.storage {
            Storage::Host(_) => Values::Here(self),
            Storage::Device(data) => Values::Returning(data.gpu().read_later(data)?),
        }))
    }
}

impl Later {
    /// The values in row-major order, once they are there. Fails if a device failed to compute them.
    pub fn wait(self) -> Result<Vec<f32>> {
        match self.0 {
            Values::Here(tensor) => Ok(tensor.data().to_vec()),
            Values::Returning(values) => values.wait(),
        }
    }
}
