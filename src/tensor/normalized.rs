//! Normalized rows on a device whose readers apply scale and shift: in f16 they are a quarter of the bytes that rows before and
//! after would be in f32. They are rounded to 11 bits, as operands of products in tf32 are.

use std::sync::Arc;

use super::array::Data;
use bytemuck::{Pod, Zeroable};

use super::{Element, Tensor};
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};

/// Scale and shift of each column.
#[derive(Debug)]
pub(super) struct Columns {
    gamma: Tensor,
    beta: Tensor,
}

impl Columns {
    /// What the values stand for, read back.
    pub fn applied(&self, array: &super::on_device::DeviceArray) -> Result<Buffer> {
        let (mut values, gamma, beta) = (array.read()?, self.gamma.to(None)?, self.beta.to(None)?);
        for row in values.chunks_exact_mut(gamma.len()) {
            for (value, (gamma, beta)) in row.iter_mut().zip(gamma.data().iter().zip(beta.data())) {
                *value = value.mul_add(*gamma, *beta);
            }
        }
        Ok(values)
    }
}

/// Where normalized rows of f16 lie, and what their readers apply to each column: `gamma x + beta`.
#[derive(Clone, Copy, Debug)]
pub struct NormalizedRows {
    pub rows: Ptr,
    pub gamma: Ptr,
    pub beta: Ptr,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Scale {
    x: Ptr,
    gamma: Ptr,
    beta: Ptr,
    out: Ptr,
    count: i64,
    d: i32,
    padding: i32,
}

/// Instances of a launch, and threads of a block.
const INSTANCES: usize = 8;
const THREADS: usize = 256;

impl Tensor {
    /// Those that are normalized rows with their scale and shift applied, in f32; the others as they are. All lie on the device.
    pub fn scaled(gpu: &Gpu, tensors: &[&Tensor]) -> Result<Vec<Tensor>> {
        let mut launches = gpu.launches("rows_scaled", INSTANCES, THREADS as u32);
        let scale = |tensor: &&Tensor| {
            let Some(NormalizedRows { rows, gamma, beta }) = tensor.normalized() else { return Ok((*tensor).clone()) };
            let out = Tensor::alloc(gpu, "activations", Element::F32, tensor.shape())?;
            let (count, d) = (tensor.len(), tensor.width() as i32);
            let args = Scale { x: rows, gamma, beta, out: out.address(), count: count as i64, d, padding: 0 };
            launches.push(count.div_ceil(THREADS), args, &[])?;
            Ok(out)
        };
        let scaled = tensors.iter().map(scale).collect::<Result<_>>()?;
        launches.run()?;
        Ok(scaled)
    }

    /// Rows `gamma x + beta`, of which device memory holds x (n, d) in f16; gamma and beta (d) lie there too.
    pub fn of_normalized(x: DeviceBuffer<u16>, gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
        let d = gamma.len();
        if d == 0 || !x.len().is_multiple_of(d) {
            return Err(Error::shape("tensor", format!("{} normalized values in rows of {d}", x.len())));
        }
        beta.expect("tensor", "shift", &[d])?;
        let mut tensor = Tensor::of_bytes([x.len() / d, d], x.into_bytes(), Element::F16)?;
        if let Data::Device(array) = &mut tensor.data {
            array.columns = Some(Arc::new(Columns { gamma: gamma.clone(), beta: beta.clone() }));
        }
        Ok(tensor)
    }

    /// Rows on a device for a kernel that takes both kinds: normalized ones, or f32 without scale and shift.
    ///
    /// # Panics
    /// As [`Tensor::ptr`], of other rows.
    pub fn rows_for_scaling(&self) -> NormalizedRows {
        let plain = || NormalizedRows { rows: self.ptr(), gamma: Ptr::NULL, beta: Ptr::NULL };
        self.normalized().unwrap_or_else(plain)
    }

    /// The rows before scale and shift, if it is made of those.
    pub fn normalized(&self) -> Option<NormalizedRows> {
        let Data::Device(array) = &self.data else { return None };
        let columns = array.columns.as_ref()?;
        Some(NormalizedRows { rows: array.ptr(), gamma: columns.gamma.ptr(), beta: columns.beta.ptr() })
    }
}
