//! Where and in which precision an encoder's layers compute.

use std::fmt;

use super::{Element, Precision};
use crate::device::{DeviceChoice, Gpu, cpu};
use crate::error::{Error, Result};

/// Where and in which arithmetic an encoder computes.
#[derive(Clone, Debug)]
pub struct Compute {
    pub precision: Precision,
    /// The device; `None` is the CPU.
    pub gpu: Option<Gpu>,
}

impl Compute {
    /// The faster arithmetic of a device.
    pub fn fastest(gpu: Option<&Gpu>) -> Precision {
        if gpu.is_some() || cpu::has_bf16() { Precision::Bf16 } else { Precision::F32 }
    }

    /// Opens what encodes, on a device if there is one, in the faster arithmetic where none is asked for. If the device was
    /// not named but found (`choice` is auto) and refuses, the CPU takes its place, with a warning that says why.
    pub fn open<T>(
        choice: DeviceChoice,
        gpu: Option<Gpu>,
        asked: Option<Precision>,
        open: impl Fn(&Compute) -> Result<T>,
    ) -> Result<(T, Compute)> {
        let on = |gpu: Option<Gpu>| {
            let compute = Compute { precision: asked.unwrap_or_else(|| Compute::fastest(gpu.as_ref())), gpu };
            Ok((open(&compute)?, compute))
        };
        match on(gpu.clone()) {
            Err(error @ Error::Device { .. }) if gpu.is_some() && choice == DeviceChoice::Auto => {
                tracing::warn!("encoding on the CPU, since {error}");
                on(None)
            }
            done => done,
        }
    }

    /// Type of the operands of products. Fails if layers do not compute in the precision.
    pub fn element(&self) -> Result<Element> {
        match self.precision {
            Precision::F32 => Ok(Element::F32),
            Precision::Bf16 => Ok(Element::Bf16),
            other => Err(Error::invalid(format!("encoders compute in f32 or bf16, not in {other}"))),
        }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.gpu {
            Some(gpu) => write!(f, "{} on {gpu:?}", self.precision),
            None => write!(f, "{} on the CPU", self.precision),
        }
    }
}

impl From<&Compute> for Compute {
    fn from(compute: &Compute) -> Compute {
        compute.clone()
    }
}

impl From<Precision> for Compute {
    fn from(precision: Precision) -> Compute {
        Compute { precision, gpu: None }
    }
}
