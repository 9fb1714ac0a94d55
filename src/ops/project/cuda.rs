//! `project` on CUDA devices (kernels/project.cu).

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::Project;
use crate::autograd::{InputGrads, KernelWork};
use crate::device::Gpu;
use crate::device::cuda::{Arithmetic, DeviceBuffer, Grid, Ptr, Target};
use crate::error::Result;
use crate::ops::gather::gather_rows;
use crate::ops::layer_norm::{self, LayerNorm, Normalized, NormalizedBackward};
use crate::ops::matmul::{Operand, Product};
use crate::ops::reduce::{Sums, parts_beside};
use crate::tensor::{GpuRows, Indices, Tensor};

/// Rows of features that a block of forward takes, or half of them.
const FORWARD_ROWS: usize = 128;

/// Rows of features that a block of backward takes at a time, and as many of them as are worth a block of its own: its
/// partial gradient is d rows of f32, to be written and read.
const BACKWARD_ROWS: usize = 32;
const SPLIT_ROWS: usize = 2048;

/// Blocks that fill a large device.
const ENOUGH_BLOCKS: usize = 132;

/// What forward's kernel spends. Of tall blocks, which large devices take, up to twice as many rows are filled up, and 112
/// columns, not 128, are normalized at least.
pub fn forward_work(n: usize, width: usize, d: usize) -> KernelWork {
    let (rows, columns) = (n.next_multiple_of(FORWARD_ROWS), if d <= 128 { 128 } else { 256 });
    let product = |n: usize, width: usize, d: usize| (2 * n * width * d) as u64;
    let products = product(n, width, d);
    KernelWork {
        products,
        columns: product(n, width, d.next_multiple_of(8)) - products,
        tiles: product(rows, width.next_multiple_of(64), d.next_multiple_of(8)),
        // Of each column there may be: sum, distance from the mean, its square (fma), scaled. Of each of d: bias, and weight
        // and bias of the normalization (fma). Of a row, in each of four lanes: two sums of a quad (2 each), the mean (a
        // division), and the deviation (division, addition, root).
        vector: (rows * (5 * columns + 3 * d + 4 * 8)) as u64,
    }
}

/// What backward's kernels spend: the normalization's, and a product that splits the rows.
pub fn backward_work(n: usize, width: usize, d: usize) -> KernelWork {
    let wide = if d <= 128 { 256 } else { 128 };
    let product = |n: usize, width: usize, d: usize| (2 * n * width * d) as u64;
    let products = product(n, width, d);
    let tiles = product(n.next_multiple_of(BACKWARD_ROWS), width.next_multiple_of(wide), d.next_multiple_of(16));
    let vector =
        layer_norm::backward_work(n, d) + parts_beside(splits_of(n, width, wide), d * width, layer_norm::blocks(n));
    KernelWork { products, columns: product(n, width, d.next_multiple_of(16)) - products, tiles, vector }
}

/// Parts of n rows that blocks share, each `wide` columns of the features.
fn splits_of(n: usize, width: usize, wide: usize) -> usize {
    ENOUGH_BLOCKS.div_ceil(width.div_ceil(wide)).min(n.div_ceil(SPLIT_ROWS)).max(1)
}

/// What backward needs.
pub struct Saved {
    features: Arc<GpuRows>,
    rows: Indices,
    weights: [Tensor; 4],
    xhat: DeviceBuffer<f32>,
    rstd: DeviceBuffer<f32>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ToF16 {
    x: Ptr,
    out: Ptr,
    length: i64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    table: Ptr,
    rows: Ptr,
    weight: Ptr,
    bias: Ptr,
    gamma: Ptr,
    beta: Ptr,
    xhat: Ptr,
    out: Ptr,
    rstd: Ptr,
    n: i32,
    width: i32,
    d: i32,
    eps: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    table: Ptr,
    rows: Ptr,
    dy: Ptr,
    partial: Ptr,
    n: i32,
    width: i32,
    d: i32,
    stride: i32,
    splits: i32,
    padding: i32,
}

impl Project {
    fn norm(&self, weights: &[Tensor; 4]) -> LayerNorm {
        let [weight, _, gamma, beta] = weights;
        LayerNorm { gamma: gamma.ptr(), beta: beta.ptr(), eps: self.eps, d: weight.shape()[0] }
    }

    /// Whether the tensor-core kernels take these features; they copy 16 bytes at a time. Features that are not f16 were
    /// meant to be exact, and are multiplied so.
    fn fused(&self, gpu: &Gpu, features: &GpuRows) -> bool {
        gpu.arithmetic() == Arithmetic::Mixed && features.is_f16() && self.features.table.width().is_multiple_of(8)
    }

    /// The rows as one f32 matrix.
    fn gathered(&self, gpu: &Gpu, features: &GpuRows, rows: &Indices) -> Result<DeviceBuffer<f32>> {
        let size = (rows.len(), self.features.table.width());
        gather_rows(gpu, "gathered features", (features.ptr(), features.is_f16()), rows.on(gpu)?, size)
    }

    pub(super) fn forward_on(&self, gpu: &Gpu, inputs: &[&Tensor; 4]) -> Result<(Tensor, Saved)> {
        let weights = inputs.map(Tensor::clone);
        let (d, width, n) = (weights[0].shape()[0], self.features.table.width(), self.features.len());
        LayerNorm::check(d)?;
        let (features, rows) = self.features.on(gpu)?;
        let Normalized { out, xhat, rstd } = if self.fused(gpu, &features) {
            self.forward_fused(gpu, (&features, &rows), &weights)?
        } else {
            let x = self.gathered(gpu, &features, &rows)?;
            let linear = gpu.alloc::<f32>("linear layer", n * d)?;
            let (x, w) = (Operand::rows(x.ptr(), width), Operand::rows(weights[0].ptr(), width));
            Product::new(x, w.t(), [n, d, width])
                .bias(weights[1].ptr(), 0)
                .exact()
                .write(gpu, Operand::rows(linear.ptr(), d))?;
            self.norm(&weights).forward(gpu, linear.ptr(), n, None)?
        };
        Ok((Tensor::on_device([n, d], out)?, Saved { features, rows, weights, xhat, rstd }))
    }

    fn forward_fused(
        &self,
        gpu: &Gpu,
        (features, rows): (&GpuRows, &Indices),
        weights: &[Tensor; 4],
    ) -> Result<Normalized> {
        let (d, width, n) = (weights[0].shape()[0], self.features.table.width(), rows.len());
        let narrow = gpu.alloc::<u16>("f16 weights", d * width)?;
        let args = ToF16 { x: weights[0].ptr(), out: narrow.ptr(), length: (d * width) as i64 };
        gpu.launch("to_f16", Grid::values(d * width, 256), &args)?;
        let result = Normalized::alloc(gpu, n, d)?;
        let args = Forward {
            table: features.ptr(),
            rows: rows.on(gpu)?,
            weight: narrow.ptr(),
            bias: weights[1].ptr(),
            gamma: weights[2].ptr(),
            beta: weights[3].ptr(),
            xhat: result.xhat.ptr(),
            out: result.out.ptr(),
            rstd: result.rstd.ptr(),
            n: n as i32,
            width: width as i32,
            d: d as i32,
            eps: self.eps,
        };
        // Twice the rows for each reading of the weights, if that leaves no multiprocessor without a block.
        let tall = n.div_ceil(2 * FORWARD_ROWS) >= gpu.multiprocessors()?;
        let (kernel, height, columns) = match d {
            ..=112 if tall => ("project_forward_112_tall", 2 * FORWARD_ROWS, 112),
            ..=128 => ("project_forward_128", FORWARD_ROWS, 128),
            _ => ("project_forward_256", FORWARD_ROWS, 256),
        };
        let shared = (2 * (height + columns) * 128) as u32;
        gpu.launch(kernel, Grid { shared, ..Grid::line(n.div_ceil(height), 256) }, &args)?;
        Ok(result)
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let Saved { features, rows, weights, xhat, rstd } = saved;
        let (d, width, n) = (weights[0].shape()[0], self.features.table.width(), rows.len());
        let bias = grads.on_device(1)?;
        let to = NormalizedBackward { gamma: grads.on_device(2)?, beta: grads.on_device(3)?, bias };
        let mut sums = gpu.sums();
        let dweight = grads.on_device(0)?;
        let norm = self.norm(&weights);
        if self.fused(gpu, &features) {
            let (dy, stride) = norm.backward_bf16(gpu, grad.ptr(), (&xhat, &rstd), (to, &mut sums))?;
            if !dweight.is_null() {
                self.backward_fused(gpu, (&features, &rows), (&dy, stride), d, (dweight, &mut sums))?;
            }
            return sums.run();
        }
        let dy = norm.backward(gpu, grad.ptr(), (&xhat, &rstd), (to, &mut sums))?;
        if !dweight.is_null() {
            let x = self.gathered(gpu, &features, &rows)?;
            let (dy, x) = (Operand::rows(dy.ptr(), d), Operand::rows(x.ptr(), width));
            let product = Product::new(dy.t(), x, [d, width, n]).exact().accumulate(dweight.adds);
            gpu.products().sum(product, Operand::rows(dweight.at, width), &mut sums)?.run()?;
        }
        sums.run()
    }

    fn backward_fused(
        &self,
        gpu: &Gpu,
        (features, rows): (&GpuRows, &Indices),
        (dy, stride): (&DeviceBuffer<u16>, usize),
        d: usize,
        (dweight, sums): (Target, &mut Sums),
    ) -> Result<()> {
        let (width, n) = (self.features.table.width(), rows.len());
        let (kernel, wide, columns) =
            if d <= 128 { ("project_backward_128", 256, 128) } else { ("project_backward_256", 128, 256) };
        let tiles = width.div_ceil(wide);
        let splits = splits_of(n, width, wide);
        let partial = gpu.alloc::<f32>("partial gradients", splits * d * width)?;
        let args = Backward {
            table: features.ptr(),
            rows: rows.on(gpu)?,
            dy: dy.ptr(),
            partial: partial.ptr(),
            n: n as i32,
            width: width as i32,
            d: d as i32,
            stride: stride as i32,
            splits: splits as i32,
            padding: 0,
        };
        let shared = (2 * BACKWARD_ROWS * (wide + columns) * 2) as u32;
        gpu.launch(kernel, Grid { blocks: [tiles, splits, 1], threads: 256, shared }, &args)?;
        let to = (Operand::rows(dweight.at, width), dweight.adds, (Target::NULL, 0));
        sums.add_products((partial, d * width), splits, (d, width), 1, to)
    }
}
