//! The decoder's operations on a CUDA device.
//!
//! Prefill multiplies on tensor cores; a step that appends one token to each of a few sequences is recorded as a graph when
//! it first occurs and launched as one from then on. What changes from step to step (tokens, positions, pages) lies in the
//! device's memory, where the next step's is written over it; the tokens that a step chooses it puts there itself.

mod cache;
mod inputs;

use std::sync::{Arc, Mutex, MutexGuard};

use bytemuck::cast_slice;
pub use cache::Cache;
use inputs::{Inputs, Shape};

use super::backend::{Ask, Backend, Output, Span};
use super::{Checkpoint, LlamaConfig, Precision, layout};
use crate::bytes::Bytes;
use crate::device::Gpu;
use crate::device::cuda::{Arithmetic, DeviceBuffer, Graph};
use crate::error::{Error, Result};
use crate::ops::linear::stored::{DeviceWeight, Gates, Numbers};
use crate::ops::paged_attention::{Heads, Sequences};
use crate::ops::sample::Draw;
use crate::tensor::{Element, Matrix, Values, Weight};

/// The most rows of one forward pass: enough to keep the tensor cores busy; the widest activations of a 7B model then take
/// 0.3 GB.
const MAX_ROWS: usize = 2048;

/// The most sequences whose steps are recorded as graphs: those that one reading of the weights serves.
const FEW: usize = 8;

/// A CUDA device: weights in their precision, activations in bf16 or f16, everything that is summed up in f32. With f32
/// weights, or under f32 arithmetic, activations are f32 too: slow, for comparison.
pub struct Cuda {
    gpu: Gpu,
    config: LlamaConfig,
    frequencies: Vec<f32>,
    heads: Heads,
    /// Bytes of the activations of [`MAX_ROWS`] rows.
    activations: usize,
    /// Recorded steps that wait for their next use.
    steps: Mutex<Vec<Step>>,
}

/// The inputs of a forward pass, and perhaps what was recorded on them: it reads and writes nothing else that it does not
/// allocate itself, beside the weights.
struct Step {
    recorded: Option<Graph<()>>,
    inputs: Inputs,
}

/// A forward pass about to run.
pub struct Plan {
    step: Step,
    sequences: Sequences,
}

impl Cuda {
    /// For the decoder of this checkpoint.
    ///
    /// Fails if the kernels do not take its sizes, or if the weights do not fit into the device's memory; the error says in
    /// which precision they would.
    pub fn new(gpu: &Gpu, checkpoint: &Checkpoint) -> Result<Cuda> {
        let config = checkpoint.config().clone();
        let element = match (gpu.arithmetic(), checkpoint.precision()) {
            (Arithmetic::F32, _) => Element::F32,
            (_, precision) => precision.element(),
        };
        let heads = Heads { queries: config.heads, kv: config.kv_heads, size: config.head_dim, element };
        heads.check()?;
        let frequencies = config.rope.frequencies(config.head_dim);
        let attention = 3 * config.query_width() + 2 * config.kv_width();
        let widest = attention.max(config.intermediate_size) + config.hidden_size;
        let activations = MAX_ROWS * (widest * element.size() + 4 * config.hidden_size);
        let backend = Cuda { gpu: gpu.clone(), config, frequencies, heads, activations, steps: Mutex::default() };
        backend.check_weights(checkpoint)?;
        Ok(backend)
    }

    fn check_weights(&self, checkpoint: &Checkpoint) -> Result<()> {
        let matrices = layout::matrices(&self.config);
        let bytes: u64 = matrices.map(|layer| checkpoint.matrix_bytes(&layer)).sum::<Result<_>>()?;
        let (needed, free) = (bytes as usize + self.activations, self.gpu.available()?);
        if needed <= free {
            return Ok(());
        }
        let numbers = self.config.matrix_parameters() as usize + self.config.vocab_size * self.config.hidden_size;
        let smaller = [(Precision::Bf16, 2 * numbers), (Precision::Int8, numbers + numbers / 64)]
            .into_iter()
            .chain([(Precision::Int4, numbers / 2 + numbers / 32)])
            .filter(|&(_, bytes)| bytes + self.activations <= free)
            .map(|(precision, bytes)| format!("{precision} ({})", Bytes::of(bytes)));
        let smaller: Vec<String> = smaller.collect();
        let advice = match smaller.is_empty() {
            true => "no precision would fit; use --device cpu".to_string(),
            false => format!("what would fit: {}; see --precision", smaller.join(", ")),
        };
        let (needed, free, precision) = (Bytes::of(needed), Bytes::of(free), checkpoint.precision());
        let reason = format!("{precision} weights and activations need {needed}, {free} are free; {advice}");
        Err(Error::device(format!("{:?}", self.gpu), "loading the language model", reason))
    }

    fn steps(&self) -> MutexGuard<'_, Vec<Step>> {
        // A panic elsewhere cannot leave the list half-changed: it only moves whole steps.
        self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A recorded step of this shape that is not in use, or the inputs of a new one.
    fn step(&self, shape: Shape) -> Result<Step> {
        let mut steps = self.steps();
        if let Some(at) = steps.iter().position(|step| step.inputs.shape() == shape) {
            return Ok(steps.swap_remove(at));
        }
        Ok(Step { recorded: None, inputs: Inputs::alloc(&self.gpu, shape, self.config.head_dim)? })
    }

    /// Runs a forward pass that chooses a token from each of the wanted rows' logits. A step of few sequences is recorded
    /// the first time, and launched as one from then on.
    fn choose(
        &self,
        mut plan: Plan,
        wanted: &[usize],
        draws: &[Draw],
        mut network: impl FnMut(&Plan) -> Result<Option<Matrix>>,
    ) -> Result<Vec<u32>> {
        let shape = plan.step.inputs.shape();
        let missing = || Error::shape("llama", "tokens to be chosen without logits");
        if !(shape.is_step() && shape.rows <= FEW && wanted.iter().copied().eq(0..shape.rows)) {
            let logits = network(&plan)?.ok_or_else(missing)?;
            let mut tokens = vec![0; wanted.len()];
            let chosen = self.gpu.alloc("tokens", wanted.len())?;
            logits.choose(&self.gpu.upload("tokens", draws)?, &chosen)?;
            return chosen.read(&mut tokens).map(|()| tokens);
        }
        plan.step.inputs.set_draws(draws)?;
        let recorded = match plan.step.recorded.take() {
            Some(recorded) => recorded,
            None => self.gpu.record((), |()| plan.step.inputs.choose(network(&plan)?.ok_or_else(missing)?))?,
        };
        recorded.launch()?;
        let tokens = plan.step.inputs.chosen()?.to_vec();
        plan.step.recorded = Some(recorded);
        self.steps().push(plan.step);
        Ok(tokens)
    }
}

impl Backend for Cuda {
    type Weight = DeviceWeight;
    type Gates = Gates;
    type Gain = DeviceBuffer<f32>;
    type Rows = Matrix;
    type Cache = Cache;
    type Plan = Plan;

    fn weight(&self, stacked: Vec<Weight>) -> Result<DeviceWeight> {
        let (precision, columns) = alike(&stacked)?;
        let parts: Vec<Numbers> = stacked.iter().map(|matrix| numbers(matrix.values())).collect();
        DeviceWeight::upload(&self.gpu, precision, columns, &parts)
    }

    fn gates(&self, gate: Weight, up: Weight) -> Result<Gates> {
        let both = [gate, up];
        let ((precision, columns), [gates, ups]) = (alike(&both)?, both.each_ref().map(|m| numbers(m.values())));
        Gates::upload(&self.gpu, precision, columns, gates, ups)
    }

    fn gain(&self, values: Vec<f32>) -> Result<DeviceBuffer<f32>> {
        self.gpu.upload("weights", &values)
    }

    fn cache(&self, prefix: Option<Arc<Cache>>, room: usize) -> Result<Cache> {
        Cache::new(&self.gpu, self.heads, self.config.layers, prefix, room, self.activations)
    }

    fn max_rows(&self) -> usize {
        MAX_ROWS
    }

    fn plan(&self, tokens: &[u32], spans: &[Span], caches: &[&mut Cache]) -> Result<Plan> {
        let single = spans.iter().all(|span| span.rows == 1) || self.heads.element == Element::F32;
        let shape = Shape::of(spans, caches, single);
        let mut step = self.step(shape)?;
        step.inputs.write(tokens, spans, caches, &self.frequencies)?;
        let sequences = step.inputs.sequences();
        Ok(Plan { step, sequences })
    }

    fn execute(
        &self,
        plan: Plan,
        wanted: &[usize],
        ask: Ask,
        mut network: impl FnMut(&Plan) -> Result<Option<Matrix>> + Send,
    ) -> Result<Output> {
        if let (Ask::Tokens(draws), false) = (ask, wanted.is_empty()) {
            return Ok(Output { tokens: self.choose(plan, wanted, draws, network)?, ..Output::default() });
        }
        let computed = match (network(&plan)?, ask) {
            (Some(logits), Ask::Of(tokens)) => Some(logits.gather(tokens)?),
            (logits, _) => logits,
        };
        let mut logits = vec![0.0; computed.as_ref().map_or(0, |logits| logits.rows() * logits.width())];
        computed.map_or(Ok(()), |computed| computed.read_into(&mut logits))?;
        // A recorded step whose inputs this pass had borrowed.
        if plan.step.recorded.is_some() {
            self.steps().push(plan.step);
        }
        Ok(Output { logits, ..Output::default() })
    }

    fn embed(&self, plan: &Plan, table: &DeviceWeight) -> Result<Matrix> {
        table.embed(plan.step.inputs.tokens(), plan.step.inputs.shape().rows)
    }

    fn rms_norm(&self, x: &Matrix, gain: &DeviceBuffer<f32>) -> Result<Matrix> {
        x.rms_norm(gain, self.config.rms_norm_eps, self.heads.element)
    }

    fn linear(&self, x: &Matrix, weight: &DeviceWeight) -> Result<Matrix> {
        weight.multiply(x)
    }

    fn logits(&self, x: &Matrix, weight: &DeviceWeight) -> Result<Matrix> {
        weight.multiply_wide(x)
    }

    fn add_linear(&self, sum: &mut Matrix, x: &Matrix, weight: &DeviceWeight) -> Result<()> {
        weight.add_to(sum, x)
    }

    fn attend(&self, plan: &Plan, layer: usize, qkv: Matrix, _: &mut [&mut Cache]) -> Result<Matrix> {
        self.heads.attend(&self.gpu, &plan.sequences, self.heads.layer(layer), &qkv)
    }

    fn gated(&self, x: &Matrix, gates: &Gates) -> Result<Matrix> {
        gates.multiply(x)
    }

    fn select(&self, x: Matrix, rows: &[usize]) -> Result<Matrix> {
        if rows.iter().copied().eq(0..x.rows()) {
            return Ok(x);
        }
        let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        x.select(&rows)
    }
}

/// Precision and columns of matrices that are multiplied together.
fn alike(matrices: &[Weight]) -> Result<(Precision, usize)> {
    let mut kinds = matrices.iter().map(|matrix| (matrix.precision(), matrix.columns()));
    let first = kinds.next().ok_or_else(|| Error::shape("llama", "no matrix"))?;
    match kinds.all(|kind| kind == first) {
        true => Ok(first),
        false => Err(Error::invalid("query, key and value weights, or gate and up weights, differ in type")),
    }
}

/// Numbers, and scales if there are any.
fn numbers(values: &Values) -> Numbers<'_> {
    match values {
        Values::F32(v) => (cast_slice(v), &[]),
        Values::F16(v) => (cast_slice(v), &[]),
        Values::Bf16(v) => (cast_slice(v), &[]),
        Values::Quantized { codes, scales, .. } => (codes, cast_slice(scales)),
    }
}
