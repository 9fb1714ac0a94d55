//! Forward passes: what is asked of them, and steps that a device records once and repeats.
//!
//! On a device a step that appends one token to each of a few sequences is recorded as a graph when it first occurs and
//! launched as one from then on. What changes from step to step (tokens, positions, pages, draws) lies in the host's page-locked
//! memory, from where the graph copies it; the tokens that a step chooses it writes to such memory itself.

use std::sync::{Mutex, MutexGuard};

use crate::device::Gpu;
use crate::device::cuda::Graph;
use crate::error::{Error, Result};
use crate::ops::paged_attention::{Batch, Cache, Heads, Inputs, Shape, Span};
use crate::ops::sample::{Draw, choose_each, gather};
use crate::tensor::{Element, Tensor};

/// The most sequences whose steps are recorded as graphs: those that one reading of the weights serves.
const FEW: usize = 8;

/// What becomes of the logits that a forward pass computes.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// All of them go to the host.
    Logits,
    /// Those of these tokens do.
    Of(&'a [u32]),
    /// A token is chosen by each row of them, and only tokens go to the host.
    Tokens(&'a [Draw]),
}

/// Output of forward passes: what was asked for; the rest is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Row by row (rows, vocabulary), or (rows, tokens asked for).
    pub logits: Vec<f32>,
    /// One for each row.
    pub tokens: Vec<u32>,
}

/// A decoder's forward passes.
pub struct Passes {
    gpu: Option<Gpu>,
    heads: Heads,
    /// Of the rotary embedding.
    frequencies: Vec<f32>,
    /// Recorded steps that wait for their next use.
    steps: Mutex<Vec<Pass>>,
}

/// A forward pass about to run. What is recorded reads and writes nothing else than the batch that it does not allocate
/// itself, beside the weights.
pub struct Pass {
    recorded: Option<Graph<()>>,
    batch: Batch,
}

impl Passes {
    /// On a device, or with `None` on the host.
    pub fn new(gpu: Option<&Gpu>, heads: Heads, frequencies: Vec<f32>) -> Passes {
        Passes { gpu: gpu.cloned(), heads, frequencies, steps: Mutex::default() }
    }

    fn steps(&self) -> MutexGuard<'_, Vec<Pass>> {
        // A panic elsewhere cannot leave the list half-changed: it only moves whole steps.
        self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Prepares a forward pass over these tokens. `spans` cover them in order; one cache per span.
    pub fn plan(&self, tokens: &[u32], spans: &[Span], caches: &[&mut Cache]) -> Result<Pass> {
        let Some(gpu) = &self.gpu else {
            return Ok(Pass { recorded: None, batch: Batch::new(tokens, spans, &self.frequencies) });
        };
        let single = spans.iter().all(|span| span.rows == 1) || self.heads.element == Element::F32;
        let shape = Shape::of(spans, caches, single);
        let mut steps = self.steps();
        let known = steps.iter().position(|step| step.batch.shape() == Some(shape)).map(|at| steps.swap_remove(at));
        drop(steps);
        let mut pass = match known {
            Some(step) => step,
            None => {
                let inputs = Inputs::alloc(gpu, shape, &self.heads)?;
                let inputs = if shape.is_step() && shape.rows <= FEW { inputs.exchanging()? } else { inputs };
                Pass { recorded: None, batch: Batch::Device(Box::new(inputs)) }
            }
        };
        pass.batch.inputs_mut()?.write(tokens, spans, caches, &self.frequencies)?;
        Ok(pass)
    }

    /// Runs a forward pass: `network` computes the logits of the rows in `wanted`, of which `ask` says what to give.
    pub fn run(
        &self,
        mut pass: Pass,
        wanted: &[usize],
        ask: Ask,
        mut network: impl FnMut(&Batch) -> Result<Option<Tensor>> + Send,
    ) -> Result<Output> {
        let exchanged = pass.batch.inputs().is_ok_and(Inputs::are_exchanged);
        let all = |shape: Shape| wanted.iter().copied().eq(0..shape.rows);
        if let (Some(gpu), Ask::Tokens(draws)) = (&self.gpu, ask)
            && exchanged
            && pass.batch.shape().is_some_and(all)
        {
            let tokens = pass.repeat(gpu, draws, network)?;
            self.steps().push(pass);
            return Ok(Output { tokens, ..Output::default() });
        }
        let logits = match self.gpu {
            // Inside of the pool, whose threads then do not fall asleep between operations.
            None => rayon::scope(|_| network(&pass.batch))?,
            Some(_) => {
                pass.batch.inputs()?.send()?;
                network(&pass.batch)?
            }
        };
        let output = match (logits, ask) {
            (None, _) => Output::default(),
            (Some(logits), Ask::Logits) => Output { logits: logits.into_host()?.to_vec(), ..Output::default() },
            (Some(logits), Ask::Of(tokens)) => {
                Output { logits: gather(&logits, tokens)?.into_host()?.to_vec(), ..Output::default() }
            }
            (Some(logits), Ask::Tokens(draws)) => Output { tokens: choose_each(&logits, draws)?, ..Output::default() },
        };
        // For the next step of this shape, which may be recorded already.
        if exchanged {
            self.steps().push(pass);
        }
        Ok(output)
    }
}

impl Pass {
    /// Launches the recorded step, which is recorded the first time, and gives the tokens that it chooses.
    fn repeat(
        &mut self,
        gpu: &Gpu,
        draws: &[Draw],
        mut network: impl FnMut(&Batch) -> Result<Option<Tensor>>,
    ) -> Result<Vec<u32>> {
        self.batch.inputs()?.set_draws(draws)?;
        let recorded = match self.recorded.take() {
            Some(recorded) => recorded,
            None => gpu.record((), |()| {
                self.batch.inputs()?.send()?;
                let missing = || Error::shape("llama", "tokens to be chosen without logits");
                let logits = network(&self.batch)?.ok_or_else(missing)?;
                self.batch.inputs()?.choose(&logits)
            })?,
        };
        recorded.launch()?;
        self.recorded = Some(recorded);
        self.batch.inputs()?.chosen()
    }
}
