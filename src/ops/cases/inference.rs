//! Operations that serve inference alone, in the table: each is one function on every processor, so that a device is compared
//! with the host, and both are timed.

mod decoder;
mod encoder;

use half::bf16;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::autograd::Cost;
use crate::error::Result;
use crate::random::{Purpose, generator};
use crate::tensor::{Compute, Element, HostMut, Tensor};

/// What rounding to bf16 leaves, relative to the largest result: once, of operands that bf16 holds exactly.
const ROUNDED: f32 = 5e-3;

/// An operation of encoders or of decoders on inputs drawn by seed.
pub struct Inference {
    /// The operation and its sizes.
    pub name: String,
    /// How far results in 16-bit arithmetic may be from those in f32, relative to the largest; 0 if nothing is rounded.
    pub bound: f32,
    open: Box<Open>,
}

type Open = dyn Fn(&Compute) -> Result<Ready> + Send + Sync;

/// An operation with its weights and inputs where it computes.
pub struct Ready {
    /// What a run costs.
    pub cost: Cost,
    run: Box<dyn Fn() -> Result<Tensor>>,
}

impl Inference {
    fn new(name: String, bound: f32, open: impl Fn(&Compute) -> Result<Ready> + Send + Sync + 'static) -> Inference {
        Inference { name, bound, open: Box::new(open) }
    }

    /// Draws weights and inputs and brings them to where the operation computes, in f32 or in 16 bits.
    pub fn open(&self, compute: &Compute) -> Result<Ready> {
        (self.open)(compute)
    }
}

impl Ready {
    fn new(cost: Cost, run: impl Fn() -> Result<Tensor> + 'static) -> Result<Ready> {
        Ok(Ready { cost, run: Box::new(run) })
    }

    /// What the operation gives. A device may still be computing it.
    pub fn run(&self) -> Result<Tensor> {
        (self.run)()
    }
}

/// Small cases at odd sizes.
pub fn small() -> Vec<Inference> {
    let mut cases = encoder::small();
    cases.extend(decoder::small());
    cases
}

/// The sizes of CLIP ViT-B/32 on 32 images and of its text tower on as many texts, of a ResNet's layers, and of Llama-2-7B's
/// layers for one token and for a prompt of 512.
pub fn large() -> Vec<Inference> {
    let mut cases = encoder::large();
    cases.extend(decoder::large());
    cases
}

/// Draws what bf16 holds exactly, so that f32 and 16 bits have the same operands.
struct Draw(ChaCha8Rng);

impl Draw {
    fn new(seed: u64) -> Draw {
        Draw(generator(seed, Purpose::Benchmark, 1))
    }

    /// Evenly spread between -scale and scale.
    fn values(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| bf16::from_f32(scale * self.0.random_range(-1.0..1.0)).to_f32()).collect()
    }

    /// A weight that keeps the variance of what it multiplies.
    fn weight(&mut self, outputs: usize, inputs: usize) -> Vec<f32> {
        self.values(outputs * inputs, (3.0 / inputs as f32).sqrt())
    }

    fn numbers(&mut self, count: usize, below: u32) -> Vec<u32> {
        (0..count).map(|_| self.0.random_range(0..below)).collect()
    }
}

/// Rows of this type where the operation computes.
fn placed(values: &[f32], width: usize, element: Element, compute: &Compute) -> Result<Tensor> {
    if let Some(gpu) = &compute.gpu {
        return Tensor::upload(gpu, "activations", values, width, element);
    }
    let mut rows = Tensor::scratch([values.len() / width, width], element)?;
    match rows.host_mut("inputs")? {
        HostMut::F32(rows) => rows.copy_from_slice(values),
        HostMut::Bf16(rows) => rows.iter_mut().zip(values).for_each(|(to, x)| *to = bf16::from_f32(*x)),
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu;
    use crate::tensor::Precision;

    #[test]
    fn the_host_in_16_bits_is_near_the_host_in_f32() {
        for case in small() {
            let result = |precision| {
                let ready = case.open(&Compute { precision, gpu: None }).unwrap();
                ready.run().unwrap().into_host().unwrap()
            };
            let wide = result(Precision::F32);
            assert!(wide.iter().all(|x| x.is_finite()) && wide.iter().any(|x| *x != 0.0), "{}", case.name);
            if !cpu::has_bf16() {
                continue;
            }
            let largest = wide.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let error =
                result(Precision::Bf16).iter().zip(&wide[..]).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(error <= case.bound * largest, "{}: {error} of {largest}", case.name);
        }
    }
}
