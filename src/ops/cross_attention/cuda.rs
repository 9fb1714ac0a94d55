//! `cross_attention` on CUDA devices (kernels/cross_attention.cu, matmul.cu, layer_norm.cu).

use bytemuck::{Pod, Zeroable};

use super::{
    AttentionWeights, BETA, CrossAttention, GAMMA, KEY, KEY_BIAS, OUT, OUT_BIAS, QUERIES, QUERY, QUERY_BIAS, SEQUENCE,
    VALUE, VALUE_BIAS,
};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Target};
use crate::error::Result;
use crate::ops::layer_norm::{LayerNorm, Normalized, NormalizedBackward, Residual};
use crate::ops::matmul::{Operand, Product};
use crate::ops::reduce::Sums;
use crate::tensor::Tensor;

/// Rows of a sequence whose gradients a block sums.
const SEQUENCE_ROWS: usize = 32;

/// What backward needs.
pub struct Saved {
    attention: AttentionWeights,
    queries: Tensor,
    sequence: Tensor,
    /// Queries after the query layer (nq, d).
    projected: DeviceBuffer<f32>,
    /// Logit vectors (nq, heads, d).
    u: DeviceBuffer<f32>,
    /// Attention weights of each pair (heads, L), end to end.
    probabilities: DeviceBuffer<f32>,
    context: DeviceBuffer<f32>,
    /// Values after the value layer (pairs, d).
    values: DeviceBuffer<f32>,
    xhat: DeviceBuffer<f32>,
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
    probabilities: Ptr,
    context: Ptr,
    count: i32,
    heads: i32,
    d: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttendBackward {
    pairs: Pairs,
    sequence: Ptr,
    probabilities: Ptr,
    dcontext: Ptr,
    dlogits: Ptr,
    du: Ptr,
    count: i32,
    heads: i32,
    d: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttendSequence {
    pairs: Pairs,
    group_offsets: Ptr,
    members: Ptr,
    u: Ptr,
    dcontext: Ptr,
    probabilities: Ptr,
    dlogits: Ptr,
    dsequence: Ptr,
    heads: i32,
    d: i32,
    adds: i32,
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

    /// Logit vectors (n, heads, d) of queries (n, d); beside them the projected queries (n, d).
    pub(super) fn logit_vectors_on(
        &self,
        gpu: &Gpu,
        queries: &Tensor,
    ) -> Result<(DeviceBuffer<f32>, DeviceBuffer<f32>)> {
        let (d, c, heads, n) = (self.d, self.head(), self.heads, queries.shape()[0]);
        let projected = gpu.alloc::<f32>("queries", n * d)?;
        Product::new(Operand::rows(queries.ptr(), d), self.on(QUERY).t(), [n, d, d])
            .bias(self.weight(QUERY_BIAS).ptr(), 0)
            .write(gpu, Operand::rows(projected.ptr(), d))?;
        let u = gpu.alloc::<f32>("logit vectors", n * heads * d)?;
        Product::new(self.head_columns(projected.ptr()), self.head_rows(KEY), [n, d, c])
            .batches(heads)
            .scaled(self.scale())
            .write(gpu, self.head_vectors(u.ptr()))?;
        Ok((u, projected))
    }

    fn layer_norm(&self) -> LayerNorm {
        LayerNorm { gamma: self.weight(GAMMA).ptr(), beta: self.weight(BETA).ptr(), eps: self.eps, d: self.d }
    }
}

impl CrossAttention {
    fn pairs_on(&self, gpu: &Gpu) -> Result<Pairs> {
        let (left, right) = (self.pairs.left().on(gpu)?, self.pairs.right().on(gpu)?);
        Ok(Pairs { left, right, offsets: self.sequences.offsets().on(gpu)?, starts: self.starts.on(gpu)? })
    }

    pub(super) fn forward_on(
        &self,
        gpu: &Gpu,
        attention: AttentionWeights,
        queries: &Tensor,
        sequence: &Tensor,
    ) -> Result<(Tensor, Saved)> {
        let a = &attention;
        let (d, c, heads) = (a.d, a.head(), self.heads);
        LayerNorm::check(d)?;
        let n = self.pairs.len();
        let total = self.lengths().iter().sum();
        let (u, projected) = a.logit_vectors_on(gpu, queries)?;

        let probabilities = gpu.alloc::<f32>("attention weights", total)?;
        let context = gpu.alloc::<f32>("contexts", n * heads * d)?;
        let args = AttendForward {
            pairs: self.pairs_on(gpu)?,
            u: u.ptr(),
            sequence: sequence.ptr(),
            probabilities: probabilities.ptr(),
            context: context.ptr(),
            count: n as i32,
            heads: heads as i32,
            d: d as i32,
            padding: 0,
        };
        gpu.launch("attend_forward", Grid::warps(n * heads), &args)?;

        let values = gpu.alloc::<f32>("values", n * d)?;
        Product::new(a.head_vectors(context.ptr()), a.head_rows(VALUE).t(), [n, c, d])
            .batches(heads)
            .bias(a.weight(VALUE_BIAS).ptr(), c)
            .write(gpu, a.head_columns(values.ptr()))?;
        let attended = gpu.alloc::<f32>("attended", n * d)?;
        Product::new(Operand::rows(values.ptr(), d), a.on(OUT).t(), [n, d, d])
            .bias(a.weight(OUT_BIAS).ptr(), 0)
            .write(gpu, Operand::rows(attended.ptr(), d))?;
        let residual = Residual { rows: queries.ptr(), row: self.pairs.left().on(gpu)? };
        let Normalized { out, xhat, rstd } = a.layer_norm().forward(gpu, attended.ptr(), n, Some(residual))?;
        let (queries, sequence) = (queries.clone(), sequence.clone());
        let out = Tensor::on_device([n, d], out)?;
        let saved = Saved { attention, queries, sequence, projected, u, probabilities, context, values, xhat, rstd };
        Ok((out, saved))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let a = &saved.attention;
        let (d, c, n, heads) = (a.d, a.head(), self.pairs.len(), self.heads);
        let by_left = self.pairs.by_left();
        let groups = (by_left.offsets().on(gpu)?, by_left.members().on(gpu)?);

        // Normalization, residual and output layer.
        let mut sums = gpu.sums();
        let to = NormalizedBackward {
            bias: grads.on_device(OUT_BIAS)?,
            gamma: grads.on_device(GAMMA)?,
            beta: grads.on_device(BETA)?,
        };
        let dx = a.layer_norm().backward(gpu, grad.ptr(), (&saved.xhat, &saved.rstd), (to, &mut sums))?;
        let dqueries = grads.on_device(QUERIES)?;
        if !dqueries.is_null() {
            gpu.add_group_sums(dx.ptr(), d, groups, by_left.len(), dqueries)?;
        }
        let dx_rows = Operand::rows(dx.ptr(), d);
        let values = Operand::rows(saved.values.ptr(), d);
        let dvalues = gpu.alloc::<f32>("gradients of values", n * d)?;
        let dweight = grads.on_device(OUT)?;
        let of_weight = Product::new(dx_rows.t(), values, [d, d, n]).accumulate(dweight.adds);
        gpu.products()
            .sum(of_weight, Operand::rows(dweight.at, d), &mut sums)?
            .write(Product::new(dx_rows, a.on(OUT), [n, d, d]), Operand::rows(dvalues.ptr(), d))?
            .run()?;

        // Value layer.
        let dvalues_heads = a.head_columns(dvalues.ptr());
        let dcontext = gpu.alloc::<f32>("gradients of contexts", n * heads * d)?;
        let dweight = grads.on_device(VALUE)?;
        let of_weight = Product::new(dvalues_heads.t(), a.head_vectors(saved.context.ptr()), [c, d, n])
            .batches(heads)
            .row_sums(grads.on_device(VALUE_BIAS)?, c)
            .accumulate(dweight.adds);
        let of_context = Product::new(dvalues_heads, a.head_rows(VALUE), [n, d, c]).batches(heads);
        let dweight = Operand::rows(dweight.at, d).every(c * d);
        gpu.products().sum(of_weight, dweight, &mut sums)?.write(of_context, a.head_vectors(dcontext.ptr()))?.run()?;

        let du_pairs = self.attend_backward_on(gpu, &saved, &dcontext, grads)?;
        let du = gpu.alloc::<f32>("gradients of logit vectors", saved.u.len())?;
        let to = Target { at: du.ptr(), adds: false };
        gpu.add_group_sums(du_pairs.ptr(), heads * d, groups, by_left.len(), to)?;
        self.queries_backward_on(gpu, &saved, &du, grads, &mut sums)?;
        sums.run()
    }

    /// Adds to the sequence's gradient; returns the gradients of u per pair.
    fn attend_backward_on(
        &self,
        gpu: &Gpu,
        saved: &Saved,
        dcontext: &DeviceBuffer<f32>,
        grads: &mut InputGrads,
    ) -> Result<DeviceBuffer<f32>> {
        let (d, n, heads) = (saved.attention.d, self.pairs.len(), self.heads);
        let pairs = self.pairs_on(gpu)?;
        let dlogits = gpu.alloc::<f32>("gradients of logits", saved.probabilities.len())?;
        let du = gpu.alloc::<f32>("gradients of logit vectors", n * heads * d)?;
        let args = AttendBackward {
            pairs,
            sequence: saved.sequence.ptr(),
            probabilities: saved.probabilities.ptr(),
            dcontext: dcontext.ptr(),
            dlogits: dlogits.ptr(),
            du: du.ptr(),
            count: n as i32,
            heads: heads as i32,
            d: d as i32,
            padding: 0,
        };
        gpu.launch("attend_backward", Grid::warps(n * heads), &args)?;
        let dsequence = grads.on_device(SEQUENCE)?;
        if !dsequence.is_null() {
            let by_right = self.pairs.by_right();
            let args = AttendSequence {
                pairs,
                group_offsets: by_right.offsets().on(gpu)?,
                members: by_right.members().on(gpu)?,
                u: saved.u.ptr(),
                dcontext: dcontext.ptr(),
                probabilities: saved.probabilities.ptr(),
                dlogits: dlogits.ptr(),
                dsequence: dsequence.at,
                heads: heads as i32,
                d: d as i32,
                adds: dsequence.adds as i32,
                padding: 0,
            };
            let longest = self.sequences.ranges().map(|range| range.len()).max().unwrap_or(0);
            let blocks = [self.sequences.len(), longest.div_ceil(SEQUENCE_ROWS), 1];
            gpu.launch("attend_sequence", Grid { blocks, threads: 128, shared: 0 }, &args)?;
        }
        Ok(du)
    }

    /// From the gradient of u to the query's and key's weights and to the queries.
    fn queries_backward_on(
        &self,
        gpu: &Gpu,
        saved: &Saved,
        du: &DeviceBuffer<f32>,
        grads: &mut InputGrads,
        sums: &mut Sums,
    ) -> Result<()> {
        let a = &saved.attention;
        let (d, c, nq, heads) = (a.d, a.head(), saved.queries.shape()[0], self.heads);
        let dprojected = gpu.alloc::<f32>("gradients of queries", nq * d)?;
        let of_projected = Product::new(a.head_vectors(du.ptr()), a.head_rows(KEY).t(), [nq, c, d]);
        let of_keys = Product::new(a.head_columns(saved.projected.ptr()).t(), a.head_vectors(du.ptr()), [c, d, nq])
            .batches(heads)
            .scaled(a.scale());
        let dkeys = grads.on_device(KEY)?;
        gpu.products()
            .write(of_projected.batches(heads).scaled(a.scale()), a.head_columns(dprojected.ptr()))?
            .sum(of_keys.accumulate(dkeys.adds), Operand::rows(dkeys.at, d).every(c * d), sums)?
            .run()?;
        // The key bias adds the same to all logits of a query, and softmax ignores that.
        grads.nothing_on_device(KEY_BIAS)?;
        let dprojected_rows = Operand::rows(dprojected.ptr(), d);
        let queries = Operand::rows(saved.queries.ptr(), d);
        let dweight = grads.on_device(QUERY)?;
        let of_weight = Product::new(dprojected_rows.t(), queries, [d, d, nq])
            .row_sums(grads.on_device(QUERY_BIAS)?, 0)
            .accumulate(dweight.adds);
        let products = gpu.products().sum(of_weight, Operand::rows(dweight.at, d), sums)?;
        let dqueries = grads.on_device(QUERIES)?;
        let products = match dqueries.is_null() {
            true => products,
            false => {
                let product = Product::new(dprojected_rows, a.on(QUERY), [nq, d, d]).accumulate(dqueries.adds);
                products.write(product, Operand::rows(dqueries.at, d))?
            }
        };
        products.run()
    }
}
