//! The backward of `cross_attention` on CUDA devices: a launch for each step of all instances.

use bytemuck::{Pod, Zeroable};

use super::super::{
    BETA, CrossAttention, GAMMA, KEY, KEY_BIAS, NAME, OUT, OUT_BIAS, QUERIES, QUERY, QUERY_BIAS, SEQUENCE, Saved,
    VALUE, VALUE_BIAS,
};
use super::{DeviceSaved, INSTANCES, OF_ROWS, Pairs, WARPS, kind};
use crate::autograd::{InstanceGrads, Reached};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Launches, Ptr, Target};
use crate::error::Result;
use crate::ops::elsewhere;
use crate::ops::layer_norm::{Gradient, LayerNorm, NormalizedBackward};
use crate::ops::matmul::{Operand, Product};
use crate::ops::project::{Attended, AttendedRows, Part, parts_of_longest};
use crate::ops::reduce::Sums;
use crate::tensor::{NormalizedRows, Tensor};

/// Kernels that add to sequences' gradients, and the largest d of each.
const OF_SEQUENCES: [(&str, usize); 2] = [("attend_sequence_128", 128), ("attend_sequence_256", 256)];

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttendBackward {
    pairs: Pairs,
    sequence: Ptr,
    gamma: Ptr,
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
    attended: AttendedRows,
    offsets: Ptr,
    dsequence: Ptr,
    d: i32,
    adds: i32,
    parts: i32,
    padding: i32,
}

/// An instance whose output has a gradient.
struct Instance<'a> {
    op: &'a CrossAttention,
    number: usize,
    saved: Box<DeviceSaved>,
    grad: Tensor,
}

/// Buffers of the instances.
type Buffers = Vec<DeviceBuffer<f32>>;

pub fn backward(gpu: &Gpu, reached: Vec<Reached<CrossAttention>>, grads: &mut InstanceGrads) -> Result<()> {
    let instances = reached.into_iter().map(|Reached { op, number, saved, grad }| match saved {
        Saved::Device(saved) => Ok(Instance { op, number, saved, grad: grad.array()?.clone() }),
        Saved::Host(_) => Err(elsewhere(NAME)),
    });
    let of: Vec<Instance> = instances.collect::<Result<_>>()?;
    let mut sums = gpu.sums();
    let dvalues = output_layer(gpu, &of, grads, &mut sums)?;
    let dcontext = value_layer(gpu, &of, dvalues, grads, &mut sums)?;
    let du = attend(gpu, &of, dcontext, grads)?;
    queries(gpu, &of, du, grads, &mut sums)?;
    sums.run()
}

/// Through normalization, residual and output layer: gradients of the values.
fn output_layer(gpu: &Gpu, of: &[Instance], grads: &mut InstanceGrads, sums: &mut Sums) -> Result<Buffers> {
    let mut rows = Vec::with_capacity(of.len());
    for Instance { number, saved, grad, .. } in of {
        let mut grads = grads.of(*number);
        let to = NormalizedBackward {
            bias: grads.on_device(OUT_BIAS)?,
            gamma: grads.on_device(GAMMA)?,
            beta: grads.on_device(BETA)?,
        };
        let (norm, dy) = (saved.attention.layer_norm(), grad.ptr());
        rows.push(Gradient { norm, dy, xhat: &saved.xhat, rstd: &saved.rstd, to });
    }
    let all_dx = LayerNorm::backward(gpu, &rows, sums)?;
    let (mut groups, mut products) = (gpu.group_sums(), gpu.products());
    let mut results = Vec::with_capacity(of.len());
    for (Instance { op, number, saved, .. }, dx) in of.iter().zip(&all_dx) {
        let (a, mut grads) = (&saved.attention, grads.of(*number));
        let (d, n) = (a.d, op.pairs.len());
        let dqueries = grads.on_device(QUERIES)?;
        if !dqueries.is_null() {
            groups.add(dx.ptr(), d, op.by_query_on(gpu)?, op.pairs.by_left().len(), dqueries)?;
        }
        let (dx, values) = (Operand::rows(dx.ptr(), d), Operand::rows(saved.values.ptr(), d));
        let dvalues = gpu.alloc::<f32>("gradients of values", n * d)?;
        let dweight = grads.on_device(OUT)?;
        let of_weight = Product::new(dx.t(), values, [d, d, n]).accumulate(dweight.adds);
        products = products
            .sum(of_weight, Operand::rows(dweight.at, d), sums)?
            .write(Product::new(dx, a.on(OUT), [n, d, d]), Operand::rows(dvalues.ptr(), d))?;
        results.push(dvalues);
    }
    groups.run()?;
    products.run()?;
    Ok(results)
}

/// Through the value layer: gradients of the contexts.
fn value_layer(
    gpu: &Gpu,
    of: &[Instance],
    dvalues: Buffers,
    grads: &mut InstanceGrads,
    sums: &mut Sums,
) -> Result<Buffers> {
    let mut products = gpu.products();
    let mut results = Vec::with_capacity(of.len());
    for (Instance { op, number, saved, .. }, dvalues) in of.iter().zip(&dvalues) {
        let (a, mut grads) = (&saved.attention, grads.of(*number));
        let (d, c, heads, n) = (a.d, a.head(), a.heads, op.pairs.len());
        let dvalues = a.head_columns(dvalues.ptr());
        let dcontext = gpu.alloc::<f32>("gradients of contexts", n * heads * d)?;
        let dweight = grads.on_device(VALUE)?;
        let of_weight = Product::new(dvalues.t(), a.head_vectors(saved.context.ptr()), [c, d, n])
            .batches(heads)
            .row_sums(grads.on_device(VALUE_BIAS)?, c)
            .accumulate(dweight.adds);
        let of_context = Product::new(dvalues, a.head_rows(VALUE), [n, d, c]).batches(heads);
        products = products
            .sum(of_weight, Operand::rows(dweight.at, d).every(c * d), sums)?
            .write(of_context, a.head_vectors(dcontext.ptr()))?;
        results.push(dcontext);
    }
    products.run()?;
    Ok(results)
}

/// Over the sequences, to whose gradients it adds or leaves its part: gradients of the logit vectors.
fn attend(gpu: &Gpu, of: &[Instance], dcontext: Buffers, grads: &mut InstanceGrads) -> Result<Buffers> {
    let mut launches = OF_ROWS.map(|of| gpu.launches(of.backward, INSTANCES, 128));
    let mut of_pairs = Vec::with_capacity(of.len());
    for (Instance { op, saved, .. }, dcontext) in of.iter().zip(&dcontext) {
        let (d, n, heads) = (saved.attention.d, op.pairs.len(), op.heads);
        let dlogits = gpu.alloc::<f32>("gradients of logits", saved.probabilities.len())?;
        let du = gpu.alloc::<f32>("gradients of logit vectors", n * heads * d)?;
        let NormalizedRows { rows, gamma, .. } = saved.sequence.rows_for_scaling();
        let args = AttendBackward {
            pairs: op.pairs_on(gpu)?,
            sequence: rows,
            gamma,
            probabilities: saved.probabilities.ptr(),
            dcontext: dcontext.ptr(),
            dlogits: dlogits.ptr(),
            du: du.ptr(),
            count: n as i32,
            heads: heads as i32,
            d: d as i32,
            padding: 0,
        };
        launches[kind(&saved.sequence)].push_reading((n * heads).div_ceil(WARPS), args, rows);
        of_pairs.push((dlogits, du));
    }
    launches.into_iter().try_for_each(Launches::run)?;

    let mut launches = OF_SEQUENCES.map(|(kernel, _)| gpu.launches(kernel, INSTANCES, 128));
    let (mut groups, mut results) = (gpu.group_sums(), Vec::with_capacity(of.len()));
    // As launches read it when they run.
    let (mut kept, mut all_du) = (Vec::with_capacity(of.len()), Vec::with_capacity(of.len()));
    for ((Instance { op, number, saved, .. }, dcontext), (dlogits, du)) in of.iter().zip(dcontext).zip(of_pairs) {
        let (d, heads, mut grads) = (saved.attention.d, op.heads, grads.of(*number));
        let (u, probabilities) = (saved.u.clone(), saved.probabilities.clone());
        let (pairs, starts) = (op.pairs.clone(), op.starts.clone());
        let attended = Attended { pairs, starts, heads, u, probabilities, dlogits, dcontext };
        if saved.sequence.normalized().is_some() {
            grads.leave(SEQUENCE, Part::Attended(attended))?;
        } else if let Some(dsequence) = Some(grads.on_device(SEQUENCE)?).filter(|to| !to.is_null()) {
            let parts = parts_of_longest(&op.sequences);
            let args = AttendSequence {
                attended: attended.on(gpu)?,
                offsets: op.sequences.offsets().on(gpu)?,
                dsequence: dsequence.at,
                d: d as i32,
                adds: dsequence.adds as i32,
                parts: parts as i32,
                padding: 0,
            };
            let kernel = OF_SEQUENCES.iter().position(|(_, widest)| d <= *widest).unwrap_or(OF_SEQUENCES.len() - 1);
            launches[kernel].push(op.sequences.len() * parts, args, &[dsequence.at])?;
            kept.push(attended);
        }
        let of_queries = gpu.alloc::<f32>("gradients of logit vectors", saved.u.len())?;
        let to = Target { at: of_queries.ptr(), adds: false };
        groups.add(du.ptr(), heads * d, op.by_query_on(gpu)?, op.pairs.by_left().len(), to)?;
        all_du.push(du);
        results.push(of_queries);
    }
    launches.into_iter().try_for_each(Launches::run)?;
    groups.run()?;
    Ok(results)
}

/// From the gradients of the logit vectors to the query's and key's weights and to the queries.
fn queries(gpu: &Gpu, of: &[Instance], du: Buffers, grads: &mut InstanceGrads, sums: &mut Sums) -> Result<()> {
    let mut products = gpu.products();
    let mut all_dprojected = Vec::with_capacity(of.len());
    for (Instance { number, saved, .. }, du) in of.iter().zip(&du) {
        let (a, mut grads) = (&saved.attention, grads.of(*number));
        let (d, c, nq, heads) = (a.d, a.head(), saved.queries.shape()[0], a.heads);
        let dprojected = gpu.alloc::<f32>("gradients of queries", nq * d)?;
        let of_projected = Product::new(a.head_vectors(du.ptr()), a.head_rows(KEY).t(), [nq, c, d]);
        let of_keys = Product::new(a.head_columns(saved.projected.ptr()).t(), a.head_vectors(du.ptr()), [c, d, nq])
            .batches(heads)
            .scaled(a.scale());
        let dkeys = grads.on_device(KEY)?;
        products = products
            .write(of_projected.batches(heads).scaled(a.scale()), a.head_columns(dprojected.ptr()))?
            .sum(of_keys.accumulate(dkeys.adds), Operand::rows(dkeys.at, d).every(c * d), sums)?;
        // The key bias adds the same to all logits of a query, and softmax ignores that.
        grads.nothing_on_device(KEY_BIAS)?;
        all_dprojected.push(dprojected);
    }
    products.run()?;
    let mut products = gpu.products();
    for (Instance { number, saved, .. }, dprojected) in of.iter().zip(&all_dprojected) {
        let (a, mut grads) = (&saved.attention, grads.of(*number));
        let (d, nq) = (a.d, saved.queries.shape()[0]);
        let (dprojected, queries) = (Operand::rows(dprojected.ptr(), d), Operand::rows(saved.queries.ptr(), d));
        let dweight = grads.on_device(QUERY)?;
        let of_weight = Product::new(dprojected.t(), queries, [d, d, nq])
            .row_sums(grads.on_device(QUERY_BIAS)?, 0)
            .accumulate(dweight.adds);
        products = products.sum(of_weight, Operand::rows(dweight.at, d), sums)?;
        let dqueries = grads.on_device(QUERIES)?;
        if !dqueries.is_null() {
            let product = Product::new(dprojected, a.on(QUERY), [nq, d, d]).accumulate(dqueries.adds);
            products = products.write(product, Operand::rows(dqueries.at, d))?;
        }
    }
    products.run()
}
