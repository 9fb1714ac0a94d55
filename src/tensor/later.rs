//! Values that the host will want, but not yet.

use super::array::Data;
use super::{Element, Tensor};
use crate::device::cuda::Returning;
use crate::error::Result;

/// The values of a tensor, on the host or on their way there.
#[derive(Debug)]
pub struct Later(Values);

#[derive(Debug)]
enum Values {
    Here(Tensor),
    Returning(Vec<usize>, Returning),
}

impl Tensor {
    /// The values as f32, as they are when everything that was queued before is done; the host goes on meanwhile. Those of
    /// other types it waits for at once.
    pub fn later(self) -> Result<Later> {
        Ok(Later(match &self.data {
            Data::Device(array) if self.element() == Element::F32 => {
                Values::Returning(self.shape.clone(), array.read_later()?)
            }
            _ => Values::Here(self.to(None)?),
        }))
    }
}

impl Later {
    /// The tensor on the host, once its values are there. Fails if a device failed to compute them.
    pub fn wait(self) -> Result<Tensor> {
        match self.0 {
            Values::Here(tensor) => Ok(tensor),
            Values::Returning(shape, values) => Tensor::new(shape, values.wait::<f32>()?),
        }
    }
}
