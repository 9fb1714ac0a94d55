//! How many texts or images an encoder takes at a time.

use crate::device::Gpu;
use crate::tensor::Compute;

/// How many tokens or images are taken at a time.
#[derive(Clone, Debug)]
pub struct Portion {
    /// By a forward pass.
    pub pass: usize,
    /// By all passes that start together.
    pub group: usize,
    /// The device that computes them, so that the processor is free for other work.
    pub gpu: Option<Gpu>,
}

impl Portion {
    /// Tokens of texts: passes have enough rows to fill the products, on the CPU few enough that they stay in the cache
    /// between layers.
    pub fn tokens(compute: &Compute) -> Portion {
        let on_device = compute.gpu.is_some();
        let pass = if on_device { 8192 } else { 512 };
        Portion { pass, group: pass * passes(on_device), gpu: compute.gpu.clone() }
    }

    /// Images; of them the same is true. Prepared for ViT-B/32, each takes 600 kB.
    pub fn images(compute: &Compute) -> Portion {
        let on_device = compute.gpu.is_some();
        let pass = if on_device { 256 } else { 8 };
        Portion { pass, group: (pass * passes(on_device)).min(512), gpu: compute.gpu.clone() }
    }
}

/// Passes of a group: on the CPU they run side by side, two for each core, so that none waits long for the last one.
fn passes(on_device: bool) -> usize {
    if on_device { 1 } else { 2 * rayon::current_num_threads() }
}
