//! `project` on CUDA devices (kernels/project.cu).

use bytemuck::{Pod, Zeroable};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::sequences::{self, OfSequences, Part};
use super::{NAME, Project, Saved};
use crate::autograd::{self, InstanceGrads, KernelWork, Reached};
use crate::device::Gpu;
use crate::device::cuda::{Arithmetic, DeviceBuffer, Launches, Ptr, Target};
use crate::error::{Error, Result};
use crate::ops::elsewhere;
use crate::ops::gather::gather_rows;
use crate::ops::layer_norm::{self, Gradient, LayerNorm, Normalized, NormalizedBackward, ToNormalize};
use crate::ops::matmul::{Operand, Product};
use crate::ops::reduce::{Sums, parts};
use crate::tensor::{Element, Indices, Ragged, Tensor};

/// Rows of features that a block of forward takes, or half of them.
const FORWARD_ROWS: usize = 128;

/// Rows of features that a block of backward takes at a time, and as many of them as are worth a block of its own: its
/// partial gradient is d rows of f32, to be written and read.
const BACKWARD_ROWS: usize = 32;
const SPLIT_ROWS: usize = 2048;

/// The most instances of a launch.
const INSTANCES: usize = 8;

/// Kernels of forward: their names, the rows of a block, and the columns there is room for.
const FORWARD: [(&str, usize, usize); 3] = [
    ("project_forward_112_tall", 2 * FORWARD_ROWS, 112),
    ("project_forward_128", FORWARD_ROWS, 128),
    ("project_forward_256", FORWARD_ROWS, 256),
];

/// Kernels of backward: their names, the largest d, the columns of features of a block, and of gradients there is room for.
const BACKWARD: [(&str, usize, usize, usize); 2] =
    [("project_backward_128", 128, 256, 128), ("project_backward_256", 256, 128, 256)];

/// Blocks that fill a large device.
const ENOUGH_BLOCKS: usize = 132;

/// What forward's kernel spends. Of tall blocks, which large devices take, up to twice as many rows are filled up, and 112
/// columns, not 128, are normalized at least.
pub fn forward_work(n: usize, width: usize, d: usize, normalized: bool) -> KernelWork {
    let (rows, columns) = (n.next_multiple_of(FORWARD_ROWS), if d <= 128 { 128 } else { 256 });
    let product = |n: usize, width: usize, d: usize| (2 * n * width * d) as u64;
    let products = product(n, width, d);
    KernelWork {
        products,
        columns: product(n, width, d.next_multiple_of(8)) - products,
        tiles: product(rows, width.next_multiple_of(64), d.next_multiple_of(8)),
        // Of each column there may be: sum, distance from the mean, its square (fma), scaled. Of each of d: bias, and weight
        // and bias of the normalization (fma), if not the readers'. Of a row, in each of four lanes: two sums of a quad (2 each), the mean (a
        // division), and the deviation (division, addition, root).
        vector: (rows * (5 * columns + if normalized { d } else { 3 * d } + 4 * 8)) as u64,
    }
}

/// What backward's kernels spend: the normalization's, and a product that splits the rows.
pub fn backward_work(n: usize, width: usize, d: usize, of: Option<&Ragged>) -> KernelWork {
    let wide = if d <= 128 { 256 } else { 128 };
    let product = |n: usize, width: usize, d: usize| (2 * n * width * d) as u64;
    let products = product(n, width, d);
    let tiles = product(n.next_multiple_of(BACKWARD_ROWS), width.next_multiple_of(wide), d.next_multiple_of(16));
    let norm = of.map_or_else(|| layer_norm::backward_work(n, d), |of| sequences::backward_work(of, d));
    let vector = norm + parts(splits_of(n, width, wide), d * width);
    KernelWork { products, columns: product(n, width, d.next_multiple_of(16)) - products, tiles, vector }
}

/// Parts of n rows that blocks share, each `wide` columns of the features.
fn splits_of(n: usize, width: usize, wide: usize) -> usize {
    ENOUGH_BLOCKS.div_ceil(width.div_ceil(wide)).min(n.div_ceil(SPLIT_ROWS)).max(1)
}

/// What backward needs.
pub struct DeviceSaved {
    instance: Instance,
    xhat: Xhat,
    rstd: DeviceBuffer<f32>,
}

/// Rows before scale and shift.
enum Xhat {
    /// Beside an output of their own.
    Apart(Tensor),
    /// The output, whose readers apply both.
    Shared(Tensor),
}

/// What forward's kernels wrote.
struct Projected {
    out: Tensor,
    xhat: Xhat,
    rstd: DeviceBuffer<f32>,
}

impl Projected {
    fn apart(Normalized { out, xhat, rstd }: Normalized, shape: [usize; 2]) -> Result<Projected> {
        Ok(Projected { out: Tensor::on_device(shape, out)?, xhat: Xhat::Apart(xhat), rstd })
    }
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
    normalized: Ptr,
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

/// An instance on a device.
struct Instance {
    features: Tensor,
    rows: Indices,
    weights: [Tensor; 4],
    eps: f32,
    sequences: Option<Ragged>,
}

impl Instance {
    fn d(&self) -> usize {
        self.weights[0].shape()[0]
    }

    fn width(&self) -> usize {
        self.weights[0].shape()[1]
    }

    fn norm(&self) -> LayerNorm {
        let [_, _, gamma, beta] = &self.weights;
        LayerNorm { gamma: gamma.ptr(), beta: beta.ptr(), eps: self.eps, d: self.d() }
    }

    /// Whether the tensor-core kernels take these features; they copy 16 bytes at a time. Features that are not f16 were
    /// meant to be exact, and are multiplied so.
    fn fused(&self, gpu: &Gpu) -> bool {
        gpu.arithmetic() != Arithmetic::F32 && self.features.element() == Element::F16 && self.width().is_multiple_of(8)
    }

    /// The rows as one f32 matrix.
    fn gathered(&self) -> Result<Tensor> {
        gather_rows("gathered features", &self.features, &self.rows)
    }
}

impl DeviceSaved {
    /// What the normalization's backward takes of rows that lie apart, for the gradient of the output.
    fn gradient<'a>(&'a self, grad: &autograd::Gradient, to: NormalizedBackward) -> Result<Gradient<'a>> {
        let Xhat::Apart(xhat) = &self.xhat else {
            return Err(Error::shape(NAME, "an array of a gradient left in parts"));
        };
        Ok(Gradient { norm: self.instance.norm(), dy: grad.array()?.ptr(), xhat, rstd: &self.rstd, to })
    }

    /// The same of rows that form sequences, for what their readers left.
    fn of_sequences<'a>(
        &'a self,
        grad: &mut autograd::Gradient,
        to: NormalizedBackward,
    ) -> Result<Option<OfSequences<'a>>> {
        let (Xhat::Shared(rows), Some(sequences)) = (&self.xhat, &self.instance.sequences) else { return Ok(None) };
        let (norm, parts) = (self.instance.norm(), grad.take_parts::<Part>()?);
        Ok(Some(OfSequences { norm, sequences, rows, rstd: &self.rstd, parts, to }))
    }
}

/// Forward of all instances: those that the tensor-core kernels take in a launch of each of these, the others one by one.
pub fn forward(gpu: &Gpu, of: Vec<(&Project, [&Tensor; 4])>) -> Result<Vec<(Tensor, Saved)>> {
    let instance = |(op, weights): &(&Project, [&Tensor; 4])| {
        LayerNorm::check(weights[0].shape()[0])?;
        let (features, rows) = op.features.on(gpu)?;
        let (weights, sequences) = (weights.map(Tensor::clone), op.sequences.clone());
        Ok(Instance { features, rows, weights, eps: op.eps, sequences })
    };
    let of: Vec<Instance> = of.iter().map(instance).collect::<Result<_>>()?;
    let mut results: Vec<Option<Projected>> = of.iter().map(|_| None).collect();
    let (fused, others): (Vec<usize>, Vec<usize>) = (0..of.len()).partition(|&i| of[i].fused(gpu));
    for (i, result) in fused.iter().zip(forward_fused(gpu, &fused.iter().map(|&i| &of[i]).collect::<Vec<_>>())?) {
        results[*i] = Some(result);
    }
    for i in others {
        results[i] = Some(forward_exact(gpu, &of[i])?);
    }
    let saved = of.into_iter().zip(results.into_iter().flatten()).map(|(instance, Projected { out, xhat, rstd })| {
        (out, Saved::Device(Box::new(DeviceSaved { instance, xhat, rstd })))
    });
    Ok(saved.collect())
}

fn forward_exact(gpu: &Gpu, of: &Instance) -> Result<Projected> {
    let (d, width, n) = (of.d(), of.width(), of.rows.len());
    let x = of.gathered()?;
    let linear = gpu.alloc::<f32>("linear layer", n * d)?;
    let (x, w) = (Operand::rows(x.ptr(), width), Operand::rows(of.weights[0].ptr(), width));
    let product = Product::new(x, w.t(), [n, d, width]).bias(of.weights[1].ptr(), 0).exact();
    product.write(gpu, Operand::rows(linear.ptr(), d))?;
    let rows = ToNormalize { norm: of.norm(), x: linear.ptr(), rows: n, residual: None };
    let result = LayerNorm::forward(gpu, &[rows])?.pop();
    Projected::apart(result.ok_or_else(|| Error::shape(NAME, "no rows were normalized"))?, [n, d])
}

/// Room for what forward writes: of sequences, rows that are not yet scaled.
fn alloc_fused(gpu: &Gpu, of: &Instance) -> Result<Projected> {
    let (n, d) = (of.rows.len(), of.d());
    if of.sequences.is_none() {
        return Projected::apart(Normalized::alloc(gpu, [n, d], Element::F32)?, [n, d]);
    }
    let [_, _, gamma, beta] = &of.weights;
    let out = Tensor::of_normalized(gpu.alloc("normalized rows", n * d)?, gamma, beta)?;
    Ok(Projected { xhat: Xhat::Shared(out.clone()), out, rstd: gpu.alloc("deviations", n)? })
}

fn forward_fused(gpu: &Gpu, of: &[&Instance]) -> Result<Vec<Projected>> {
    let narrow = narrow_weights(gpu, of)?;
    let results: Vec<Projected> = of.iter().map(|instance| alloc_fused(gpu, instance)).collect::<Result<_>>()?;
    let multiprocessors = gpu.multiprocessors();
    // Twice the rows for each reading of the weights, if that leaves no multiprocessor without a block.
    let tall = |of: &Instance| of.d() <= 112 && of.rows.len().div_ceil(2 * FORWARD_ROWS) >= multiprocessors;
    let kernel = |of: &Instance| match of.d() {
        _ if tall(of) => 0,
        ..=128 => 1,
        _ => 2,
    };
    for (number, (name, height, columns)) in FORWARD.into_iter().enumerate() {
        let mut launches = gpu.launches(name, INSTANCES, 256).shared((2 * (height + columns) * 128) as u32);
        for (instance, result) in of.iter().zip(&results).filter(|(of, _)| kernel(of) == number) {
            let (n, weights) = (instance.rows.len(), &instance.weights);
            let [xhat, out, normalized] = match &result.xhat {
                Xhat::Apart(xhat) => [xhat.ptr(), result.out.ptr(), Ptr::NULL],
                Xhat::Shared(out) => [Ptr::NULL, Ptr::NULL, out.normalized().map_or(Ptr::NULL, |of| of.rows)],
            };
            let args = Forward {
                table: instance.features.address(),
                rows: instance.rows.on(gpu)?,
                weight: narrow.at[&weights[0].ptr()],
                bias: weights[1].ptr(),
                gamma: weights[2].ptr(),
                beta: weights[3].ptr(),
                xhat,
                out,
                normalized,
                rstd: result.rstd.ptr(),
                n: n as i32,
                width: instance.width() as i32,
                d: instance.d() as i32,
                eps: instance.eps,
            };
            launches.push(n.div_ceil(height), args, &[])?;
        }
        launches.run()?;
    }
    Ok(results)
}

/// Weights in f16.
struct NarrowWeights {
    /// Where each lies, by where the weight does.
    at: HashMap<Ptr, Ptr>,
    /// Those that no copy stood beside.
    _made: Vec<DeviceBuffer<u16>>,
}

fn narrow_weights(gpu: &Gpu, of: &[&Instance]) -> Result<NarrowWeights> {
    let mut launches = gpu.launches("to_f16", INSTANCES, 256);
    let (mut at, mut made) = (HashMap::new(), Vec::new());
    for weight in of.iter().map(|instance| &instance.weights[0]) {
        if let Entry::Vacant(entry) = at.entry(weight.ptr()) {
            if let Some(copy) = weight.copy_in(Element::F16) {
                entry.insert(copy);
                continue;
            }
            let out = gpu.alloc::<u16>("f16 weights", weight.len())?;
            let args = ToF16 { x: weight.ptr(), out: out.ptr(), length: weight.len() as i64 };
            launches.push(weight.len().div_ceil(256), args, &[])?;
            entry.insert(out.ptr());
            made.push(out);
        }
    }
    launches.run()?;
    Ok(NarrowWeights { at, _made: made })
}

/// Backward of the instances whose outputs have a gradient.
pub fn backward(gpu: &Gpu, reached: Vec<Reached<Project>>, grads: &mut InstanceGrads) -> Result<()> {
    let mut sums = gpu.sums();
    // Whose gradient is an array, and is multiplied as the features are stored; whose rows form sequences; all others.
    let (mut fused, mut in_parts, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for Reached { number, saved, grad, .. } in reached {
        let Saved::Device(saved) = saved else { return Err(elsewhere(NAME)) };
        let mut grads = grads.of(number);
        let dweight = grads.on_device(0)?;
        let bias = grads.on_device(1)?;
        let to = NormalizedBackward { gamma: grads.on_device(2)?, beta: grads.on_device(3)?, bias };
        let of_kind = match &saved.xhat {
            Xhat::Shared(_) => &mut in_parts,
            Xhat::Apart(_) if saved.instance.fused(gpu) => &mut fused,
            Xhat::Apart(_) => &mut others,
        };
        of_kind.push((saved, grad, to, dweight));
    }
    let gradients: Vec<Gradient> =
        fused.iter().map(|(saved, grad, to, _)| saved.gradient(grad, *to)).collect::<Result<_>>()?;
    let mut dy = LayerNorm::backward_bf16(gpu, &gradients, &mut sums)?;
    let gathered = in_parts.iter_mut().map(|(saved, grad, to, _)| saved.of_sequences(grad, *to));
    let gathered = gathered.filter_map(Result::transpose).collect::<Result<Vec<OfSequences>>>()?;
    dy.extend(sequences::backward(gpu, gathered, &mut sums)?);
    // Gradients of rows and what they were computed from are given back before memory for those of weights is taken.
    let both = fused.into_iter().chain(in_parts);
    let instances: Vec<(Instance, Target)> = both.map(|(saved, _, _, dweight)| (saved.instance, dweight)).collect();
    let weights = instances.iter().zip(&dy).map(|((instance, dweight), dy)| (instance, dy, *dweight));
    backward_fused(gpu, weights.filter(|(_, _, dweight)| !dweight.is_null()), &mut sums)?;
    for (saved, grad, to, dweight) in others {
        let instance = &saved.instance;
        let (d, width, n) = (instance.d(), instance.width(), instance.rows.len());
        let dy = LayerNorm::backward(gpu, &[saved.gradient(&grad, to)?], &mut sums)?;
        if let Some(dy) = dy.first().filter(|_| !dweight.is_null()) {
            let x = instance.gathered()?;
            let (dy, x) = (Operand::rows(dy.ptr(), d), Operand::rows(x.ptr(), width));
            let product = Product::new(dy.t(), x, [d, width, n]).exact().accumulate(dweight.adds);
            gpu.products().sum(product, Operand::rows(dweight.at, width), &mut sums)?.run()?;
        }
    }
    sums.run()
}

/// Gradients of weights from those of the rows, in bf16.
fn backward_fused<'a>(
    gpu: &Gpu,
    of: impl Iterator<Item = (&'a Instance, &'a DeviceBuffer<u16>, Target)>,
    sums: &mut Sums,
) -> Result<()> {
    let mut launches = BACKWARD.map(|(kernel, _, wide, columns)| {
        gpu.launches(kernel, INSTANCES, 256).shared((2 * BACKWARD_ROWS * (wide + columns) * 2) as u32)
    });
    for (instance, dy, dweight) in of {
        let (d, width, n) = (instance.d(), instance.width(), instance.rows.len());
        let kernel = BACKWARD.iter().position(|(_, widest, ..)| d <= *widest).unwrap_or(BACKWARD.len() - 1);
        let wide = BACKWARD[kernel].2;
        let splits = splits_of(n, width, wide);
        let partial = gpu.alloc::<f32>("partial gradients", splits * d * width)?;
        let args = Backward {
            table: instance.features.address(),
            rows: instance.rows.on(gpu)?,
            dy: dy.ptr(),
            partial: partial.ptr(),
            n: n as i32,
            width: width as i32,
            d: d as i32,
            stride: instance.norm().stride() as i32,
            splits: splits as i32,
            padding: 0,
        };
        launches[kernel].push(width.div_ceil(wide) * splits, args, &[])?;
        let to = (Operand::rows(dweight.at, width), dweight.adds, (Target::NULL, 0));
        sums.add_products((partial, d * width), splits, (d, width), 1, to);
    }
    launches.into_iter().try_for_each(Launches::run)
}
