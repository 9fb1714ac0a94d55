//! Which arithmetic an encoder computes with.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::device::cpu::PackedBf16;
use crate::device::cuda::encoder::Element;
use crate::device::{DeviceChoice, Gpu};
use crate::error::{Error, Result};

/// Type of an encoder's weights and of the operands of its products; sums and residuals are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The reference.
    #[default]
    F32,
    /// Twice as fast or more where the processor has instructions for it.
    Bf16,
}

impl Precision {
    /// The faster one on this processor.
    pub fn fastest() -> Precision {
        if PackedBf16::is_native() { Precision::Bf16 } else { Precision::F32 }
    }
}

impl From<Precision> for Element {
    fn from(precision: Precision) -> Element {
        match precision {
            Precision::F32 => Element::F32,
            Precision::Bf16 => Element::Bf16,
        }
    }
}

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
        if gpu.is_some() { Precision::Bf16 } else { Precision::fastest() }
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

    /// Tokens of texts: passes have enough rows to fill the products, on the CPU few enough that they stay in the cache
    /// between layers.
    pub(super) fn tokens(&self) -> Portion {
        let pass = if self.gpu.is_some() { 8192 } else { 512 };
        Portion { pass, group: pass * self.passes(), on_device: self.gpu.is_some() }
    }

    /// Images; of them the same is true. Prepared for ViT-B/32, each takes 600 kB.
    pub(super) fn images(&self) -> Portion {
        let pass = if self.gpu.is_some() { 256 } else { 8 };
        Portion { pass, group: (pass * self.passes()).min(512), on_device: self.gpu.is_some() }
    }

    /// Passes of a group: on the CPU they run side by side, two for each core, so that none waits long for the last one.
    fn passes(&self) -> usize {
        if self.gpu.is_some() { 1 } else { 2 * rayon::current_num_threads() }
    }
}

/// How many tokens or images are taken at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// By a forward pass.
    pub pass: usize,
    /// By all passes that start together.
    pub group: usize,
    /// Whether a device computes them, and the processor is free for other work.
    pub on_device: bool,
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

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        match text {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err("is none of f32, bf16".into()),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}
