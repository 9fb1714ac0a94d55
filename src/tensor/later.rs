//! Values that the host will want, but not yet.

use super::Tensor;
use super::array::Data;
use crate::device::cuda::Returning;
use crate::error::Result;

/// The values of a tensor, on the host or on their way there.
#[derive(Debug)]
pub struct Later(Values);

#[derive(Debug)]
enum Values {
    Here(Tensor),
    Returning(Returning),
}

impl Tensor {
    /// The f32 values as they are when everything that was queued before is done; the host goes on meanwhile.
    pub fn later(self) -> Result<Later> {
        Ok(Later(match &self.data {
            Data::Device(array) => Values::Returning(array.read_later()?),
            _ => Values::Here(self),
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
