//! `cross_attention` on CUDA devices (kernels/cross_attention.cu, two_layers.cu, matmul.cu, layer_norm.cu).

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

pub use backward::backward;

use super::{
    AttentionWeights, BETA, Checked, CrossAttention, GAMMA, KEY, NAME, OUT, OUT_BIAS, QUERY, QUERY_BIAS, Saved, VALUE,
    VALUE_BIAS,
};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Launches, Ptr};
use crate::error::{Error, Result};
use crate::ops::layer_norm::{LayerNorm, Normalized, Residual, ToNormalize};
use crate::ops::matmul::{Operand, Product};
use crate::ops::two_layers::{Ending, Layer, Sizes, TwoLayers};
use crate::tensor::{Element, NormalizedRows, Tensor};

mod backward;

/// The most instances of a launch.
const INSTANCES: usize = 16;

/// Warps of a block, each of which has a pair and head.
const WARPS: usize = 4;

/// Kernels by the rows of sequences that they take.
struct OfRows {
    forward: &'static str,
    backward: &'static str,
}

/// Of f32, and of [normalized](Tensor::normalized) rows.
const OF_ROWS: [OfRows; 2] = [
    OfRows { forward: "attend_forward_f32", backward: "attend_backward_f32" },
    OfRows { forward: "attend_forward_f16", backward: "attend_backward_f16" },
];

/// Which of them takes these.
fn kind(sequence: &Tensor) -> usize {
    sequence.normalized().is_some() as usize
}

/// What backward needs.
pub struct DeviceSaved {
    attention: AttentionWeights,
    queries: Tensor,
    sequence: Tensor,
    /// Queries after the query layer (nq, d).
    projected: DeviceBuffer<f32>,
    /// Logit vectors (nq, heads, d).
    u: Arc<DeviceBuffer<f32>>,
    /// Attention weights of each pair (heads, L), end to end.
    probabilities: Arc<DeviceBuffer<f32>>,
    context: DeviceBuffer<f32>,
    /// Values after the value layer (pairs, d).
    values: DeviceBuffer<f32>,
    xhat: Tensor,
    rstd: DeviceBuffer<f32>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Pairs {
    left: Ptr,
    right: Ptr,
    offsets: Ptr,
    starts: Ptr,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttendForward {
    pairs: Pairs,
    u: Ptr,
    sequence: Ptr,
    gamma: Ptr,
    beta: Ptr,
    probabilities: Ptr,
    context: Ptr,
    count: i32,
    heads: i32,
    d: i32,
    padding: i32,
}

impl AttentionWeights {
    fn on(&self, input: usize) -> Operand {
        Operand::rows(self.weight(input).ptr(), self.d)
    }

    /// Rows of a (d, d) weight that belong to each head.
    fn head_rows(&self, input: usize) -> Operand {
        self.on(input).every(self.head() * self.d)
    }

    /// Columns of a matrix of rows of d values that belong to each head.
    fn head_columns(&self, at: Ptr) -> Operand {
        Operand::rows(at, self.d).every(self.head())
    }

    /// The vectors of each head in a matrix (n, heads, d).
    fn head_vectors(&self, at: Ptr) -> Operand {
        Operand::rows(at, self.heads * self.d).every(self.d)
    }

    /// Whether two layers of this width are one launch where they read these arrays. Those of several heads are cut between heads.
    fn has_two_layers(&self, gpu: &Gpu, reads: &[Ptr]) -> bool {
        self.heads == 1 && gpu.has_two_layers(&Sizes::square(self.d), reads)
    }

    fn layer_norm(&self) -> LayerNorm {
        LayerNorm { gamma: self.weight(GAMMA).ptr(), beta: self.weight(BETA).ptr(), eps: self.eps, d: self.d }
    }
}

/// Logit vectors (n, heads, d) of queries (n, d) of each; beside them the projected queries (n, d).
pub fn logit_vectors(
    gpu: &Gpu,
    of: &[(&AttentionWeights, &Tensor)],
) -> Result<Vec<(DeviceBuffer<f32>, DeviceBuffer<f32>)>> {
    let (mut together, mut first, mut second) = (gpu.two_layers(), gpu.products(), Vec::new());
    let mut results = Vec::with_capacity(of.len());
    for (a, queries) in of {
        let (d, c, heads, n) = (a.d, a.head(), a.heads, queries.shape()[0]);
        let projected = gpu.alloc::<f32>("queries", n * d)?;
        let u = gpu.alloc::<f32>("logit vectors", n * heads * d)?;
        let [weight, bias, keys] = [QUERY, QUERY_BIAS, KEY].map(|input| a.weight(input).ptr());
        if a.has_two_layers(gpu, &[weight, bias, keys, queries.ptr()]) {
            together.push(&TwoLayers {
                sizes: Sizes::square(d),
                n,
                parts: vec![queries.ptr()],
                first: Layer { weight, bias },
                relu: false,
                hidden: projected.ptr(),
                second: Layer { weight: keys, bias: Ptr::NULL },
                transposed: true,
                ending: Ending::Written { scale: a.scale(), out: u.ptr() },
            });
        } else {
            let product = Product::new(Operand::rows(queries.ptr(), d), a.on(QUERY).t(), [n, d, d]).bias(bias, 0);
            first = first.write(product, Operand::rows(projected.ptr(), d))?;
            let product = Product::new(a.head_columns(projected.ptr()), a.head_rows(KEY), [n, d, c]);
            second.push((product.batches(heads).scaled(a.scale()), a.head_vectors(u.ptr())));
        }
        results.push((u, projected));
    }
    together.run()?;
    first.run()?;
    gpu.products().write_all(second)?.run()?;
    Ok(results)
}

/// Attention weights and contexts of each: of its logit vectors, over its sequences.
fn attend(
    gpu: &Gpu,
    of: &[Checked],
    u: &[(DeviceBuffer<f32>, DeviceBuffer<f32>)],
) -> Result<Vec<[DeviceBuffer<f32>; 2]>> {
    let mut launches = OF_ROWS.map(|of| gpu.launches(of.forward, INSTANCES, 128));
    let mut results = Vec::with_capacity(of.len());
    for (Checked { op, attention, sequence, .. }, (u, _)) in of.iter().zip(u) {
        let (d, heads, n) = (attention.d, op.heads, op.pairs.len());
        let probabilities = gpu.alloc::<f32>("attention weights", op.lengths().iter().sum())?;
        let context = gpu.alloc::<f32>("contexts", n * heads * d)?;
        let NormalizedRows { rows, gamma, beta } = sequence.rows_for_scaling();
        let args = AttendForward {
            pairs: op.pairs_on(gpu)?,
            u: u.ptr(),
            sequence: rows,
            gamma,
            beta,
            probabilities: probabilities.ptr(),
            context: context.ptr(),
            count: n as i32,
            heads: heads as i32,
            d: d as i32,
            padding: 0,
        };
        launches[kind(sequence)].push_reading((n * heads).div_ceil(WARPS), args, rows);
        results.push([probabilities, context]);
    }
    launches.into_iter().try_for_each(Launches::run)?;
    Ok(results)
}

/// Value and output layer, residual and normalization of the contexts of each; beside their outputs the values (pairs, d).
fn finish(
    gpu: &Gpu,
    of: &[Checked],
    attended: &[[DeviceBuffer<f32>; 2]],
) -> Result<Vec<(DeviceBuffer<f32>, Normalized)>> {
    let (mut together, mut first, mut second) = (gpu.two_layers(), gpu.products(), Vec::new());
    // Outputs that are normalized in a launch of their own.
    let (mut outputs, mut rows) = (Vec::new(), Vec::new());
    let mut results = Vec::with_capacity(of.len());
    for (Checked { op, attention: a, queries, .. }, [_, context]) in of.iter().zip(attended) {
        let (d, c, heads, n) = (a.d, a.head(), a.heads, op.pairs.len());
        let values = gpu.alloc::<f32>("values", n * d)?;
        let residual = Residual { rows: queries.ptr(), row: op.pairs.left().on(gpu)? };
        let [value, value_bias, out, out_bias] = [VALUE, VALUE_BIAS, OUT, OUT_BIAS].map(|input| a.weight(input).ptr());
        let norm = a.layer_norm();
        let reads = [value, value_bias, out, out_bias, context.ptr(), queries.ptr(), norm.gamma, norm.beta];
        if a.has_two_layers(gpu, &reads) {
            let normalized = Normalized::alloc(gpu, [n, d], Element::F16)?;
            together.push(&TwoLayers {
                sizes: Sizes::square(d),
                n,
                parts: vec![context.ptr()],
                first: Layer { weight: value, bias: value_bias },
                relu: false,
                hidden: values.ptr(),
                second: Layer { weight: out, bias: out_bias },
                transposed: false,
                ending: Ending::Normalized { norm, residual, to: &normalized },
            });
            results.push((values, Some(normalized)));
            continue;
        }
        let product = Product::new(a.head_vectors(context.ptr()), a.head_rows(VALUE).t(), [n, c, d]);
        let product = product.batches(heads).bias(value_bias, c);
        first = first.write(product, a.head_columns(values.ptr()))?;
        let output = gpu.alloc::<f32>("attended", n * d)?;
        let product = Product::new(Operand::rows(values.ptr(), d), a.on(OUT).t(), [n, d, d]).bias(out_bias, 0);
        second.push((product, Operand::rows(output.ptr(), d)));
        rows.push(ToNormalize { norm, x: output.ptr(), rows: n, residual: Some(residual) });
        outputs.push(output);
        results.push((values, None));
    }
    together.run()?;
    first.run()?;
    gpu.products().write_all(second)?.run()?;
    let mut apart = LayerNorm::forward(gpu, &rows)?.into_iter();
    let all = results.into_iter().map(|(values, normalized)| Some((values, normalized.or_else(|| apart.next())?)));
    all.collect::<Option<_>>().ok_or_else(|| Error::shape(NAME, "contexts that were not normalized"))
}

/// The instances' outputs, a launch for each step of them all.
pub fn forward(gpu: &Gpu, of: Vec<Checked>) -> Result<Vec<(Tensor, Saved)>> {
    of.iter().try_for_each(|instance| LayerNorm::check(instance.attention.d))?;
    let queries: Vec<_> = of.iter().map(|instance| (&instance.attention, instance.queries)).collect();
    let u = logit_vectors(gpu, &queries)?;
    let attended = attend(gpu, &of, &u)?;

    let finished = finish(gpu, &of, &attended)?;

    let parts = of.into_iter().zip(u).zip(attended).zip(finished);
    let saved = parts.map(|(((instance, (u, projected)), attended), (values, normalized))| {
        let Checked { op, attention, queries, sequence } = instance;
        let ([probabilities, context], Normalized { out, xhat, rstd }) = (attended, normalized);
        let out = Tensor::on_device([op.pairs.len(), attention.d], out)?;
        let (queries, sequence) = (queries.clone(), sequence.clone());
        let (u, probabilities) = (Arc::new(u), Arc::new(probabilities));
        let saved =
            DeviceSaved { attention, queries, sequence, projected, u, probabilities, context, values, xhat, rstd };
        Ok((out, Saved::Device(Box::new(saved))))
    });
    saved.collect()
}

impl CrossAttention {
    fn pairs_on(&self, gpu: &Gpu) -> Result<Pairs> {
        let (left, right) = (self.pairs.left().on(gpu)?, self.pairs.right().on(gpu)?);
        Ok(Pairs { left, right, offsets: self.sequences.offsets().on(gpu)?, starts: self.starts.on(gpu)? })
    }

    /// The pairs of each query, as groups.
    fn by_query_on(&self, gpu: &Gpu) -> Result<(Ptr, Ptr)> {
        let by_left = self.pairs.by_left();
        Ok((by_left.offsets().on(gpu)?, by_left.members().on(gpu)?))
    }
}
