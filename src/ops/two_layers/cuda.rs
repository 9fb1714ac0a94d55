//! Launches of kernels/two_layers.cu.

use bytemuck::{Pod, Zeroable};

use super::{PARTS, Sizes};
use crate::device::Gpu;
use crate::device::cuda::{Arithmetic, Ptr};
use crate::error::Result;
use crate::ops::layer_norm::{LayerNorm, Normalized, Residual};

/// The most instances of a launch.
const INSTANCES: usize = 16;

/// Rows that a block's eight warps take at a time, and threads of a block.
const ROWS: usize = 128;
const THREADS: u32 = 256;

/// Bytes to a multiple of which arrays are aligned, so that four values are loaded at a time.
const FOUR_VALUES: u64 = 16;

/// Weight and bias, or null.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub weight: Ptr,
    pub bias: Ptr,
}

/// What becomes of the second layer's outputs.
pub enum Ending<'a> {
    /// They are scaled, a bias is added, and they go there (n, d).
    Written { scale: f32, out: Ptr },
    /// A residual is added, and they are normalized.
    Normalized { norm: LayerNorm, residual: Residual, to: &'a Normalized },
}

/// One instance: `n` rows of inputs, which lie side by side, through both layers.
pub struct TwoLayers<'a> {
    pub sizes: Sizes,
    pub n: usize,
    /// (n, width) each.
    pub parts: Vec<Ptr>,
    /// Weight (h, Σ widths).
    pub first: Layer,
    /// Whether ReLU follows the first.
    pub relu: bool,
    /// What is between the layers (n, h), which is written.
    pub hidden: Ptr,
    /// Weight (d, h), or (h, d) if it is transposed.
    pub second: Layer,
    pub transposed: bool,
    pub ending: Ending<'a>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    parts: [Ptr; PARTS],
    weight1: Ptr,
    bias1: Ptr,
    hidden: Ptr,
    weight2: Ptr,
    bias2: Ptr,
    out: Ptr,
    residual: Ptr,
    residual_row: Ptr,
    gamma: Ptr,
    beta: Ptr,
    xhat: Ptr,
    rstd: Ptr,
    widths: [i32; PARTS],
    count: i32,
    n: i32,
    h: i32,
    d: i32,
    blocks: i32,
    scale: f32,
    eps: f32,
    relu: i32,
    transposed: i32,
}

/// Instances that run at once, in one launch where they are not many: none reads what another writes.
pub struct TwoLayersTogether<'a> {
    gpu: &'a Gpu,
    of: Vec<Args>,
    normalized: Vec<Args>,
    /// Bytes that the largest of them needs.
    shared: usize,
}

impl TwoLayers<'_> {
    fn args(&self) -> Args {
        let TwoLayers { sizes, n, parts, first, relu, hidden, second, transposed, ending } = self;
        let mut args = Args {
            weight1: first.weight,
            bias1: first.bias,
            hidden: *hidden,
            weight2: second.weight,
            bias2: second.bias,
            count: parts.len() as i32,
            n: *n as i32,
            h: sizes.h as i32,
            d: sizes.d as i32,
            scale: 1.0,
            relu: i32::from(*relu),
            transposed: i32::from(*transposed),
            ..Args::zeroed()
        };
        for (i, (part, width)) in parts.iter().zip(&sizes.widths).enumerate() {
            (args.parts[i], args.widths[i]) = (*part, *width as i32);
        }
        match ending {
            Ending::Written { scale, out } => Args { scale: *scale, out: *out, ..args },
            Ending::Normalized { norm, residual, to } => Args {
                out: to.out.ptr(),
                residual: residual.rows,
                residual_row: residual.row,
                gamma: norm.gamma,
                beta: norm.beta,
                xhat: to.xhat.address(),
                rstd: to.rstd.ptr(),
                eps: norm.eps,
                ..args
            },
        }
    }
}

impl Gpu {
    /// Whether the kernel takes layers of these sizes that read these arrays, in this device's arithmetic.
    pub fn has_two_layers(&self, sizes: &Sizes, reads: &[Ptr]) -> bool {
        let aligned = reads.iter().all(|at| at.is_aligned_to(FOUR_VALUES));
        self.arithmetic() != Arithmetic::F32 && sizes.fit() && aligned
    }

    /// None yet.
    pub fn two_layers(&self) -> TwoLayersTogether<'_> {
        TwoLayersTogether { gpu: self, of: vec![], normalized: vec![], shared: 0 }
    }
}

impl TwoLayersTogether<'_> {
    /// And one that the device [has](Gpu::has_two_layers). What it reads and writes is kept until [`TwoLayersTogether::run`].
    pub fn push(&mut self, one: &TwoLayers) {
        self.shared = self.shared.max(one.sizes.shared());
        match one.ending {
            Ending::Written { .. } => self.of.push(one.args()),
            Ending::Normalized { .. } => self.normalized.push(one.args()),
        }
    }

    /// Runs them.
    pub fn run(self) -> Result<()> {
        let kernels = match self.gpu.arithmetic() {
            Arithmetic::Bf16 => ["two_layers_bf16", "two_layers_norm_bf16"],
            _ => ["two_layers_f16", "two_layers_norm_f16"],
        };
        for (kernel, of) in kernels.into_iter().zip([self.of, self.normalized]) {
            let tiles = |args: &Args| (args.n as usize).div_ceil(ROWS);
            // A multiprocessor has registers for one block, which brings its weights once: as many as run at a time, each with as
            // many tiles.
            let each = of.iter().map(tiles).sum::<usize>().div_ceil(self.gpu.multiprocessors()).max(1);
            let mut launches = self.gpu.launches(kernel, INSTANCES, THREADS).shared(self.shared as u32);
            for args in of {
                let blocks = tiles(&args).div_ceil(each);
                launches.push(blocks, Args { blocks: blocks as i32, ..args }, &[])?;
            }
            launches.run()?;
        }
        Ok(())
    }
}
