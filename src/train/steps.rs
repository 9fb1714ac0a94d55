//! Optimizer steps: forward, backward and AdamW of a batch, queued without waiting for the device.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::autograd::{Tape, Var};
use crate::device::Gpu;
use crate::device::cuda::{Recorded, Repeating};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::model::{Batch, Model, Noise};
use crate::ops::{AdamW, Moments, Sum};
use crate::parallel::{Group, Reduce};
use crate::span;
use crate::tensor::{Later, Tensor};
use crate::trace::on_device;

/// Where steps are computed, how they are queued, and with whom they are made.
pub struct Steps {
    gpu: Option<Gpu>,
    graph: Option<Repeating>,
    team: Option<Team>,
}

/// The ranks that make each step together.
struct Team {
    group: Arc<Group>,
    reduce: Box<dyn Reduce>,
    /// For how long this rank waited for sums while it had nothing else to do.
    waited: Duration,
}

/// A step that was queued.
pub struct Queued {
    /// The losses of each score, of the batches of all ranks.
    pub losses: Later,
    /// How many ranks were asked to stop when they began it.
    pub asked: Option<Later>,
}

/// One step of the optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The optimizer's settings for this step.
    pub adamw: AdamW,
    /// The step's number, from 1.
    pub number: u64,
    /// The share that the batch's loss has of the loss that is minimized: 1, or that of its mentions in the batches of all
    /// ranks.
    pub weight: f32,
}

impl Steps {
    /// Steps on a device or the host. With `graphs`, a device gets each step as one CUDA graph, not kernel by kernel; the
    /// results are the same.
    pub fn new(gpu: Option<&Gpu>, graphs: bool) -> Result<Steps> {
        if graphs && gpu.is_none() {
            return Err(Error::invalid("--graph is for CUDA devices; leave it out, or take --device cuda"));
        }
        Ok(Steps { graph: gpu.filter(|_| graphs).map(Gpu::repeating), gpu: gpu.cloned(), team: None })
    }

    /// Steps that these ranks make together, of which this one computes on a device or the host.
    pub fn together(gpu: Option<&Gpu>, group: Arc<Group>, reduce: Box<dyn Reduce>) -> Steps {
        Steps { gpu: gpu.cloned(), graph: None, team: Some(Team { group, reduce, waited: Duration::ZERO }) }
    }

    /// The ranks that make them together, if there are several.
    pub fn group(&self) -> Option<&Arc<Group>> {
        self.team.as_ref().map(|team| &team.group)
    }

    /// For how long this rank waited for other ranks' gradients while it had nothing else to do.
    pub fn waited(&self) -> Duration {
        self.team.as_ref().map_or(Duration::ZERO, |team| team.waited)
    }

    /// The device, `None` for the host.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// How the graphs of the steps so far came about, if steps are graphs.
    pub fn recorded(&self) -> Option<Recorded> {
        self.graph.as_ref().map(Repeating::recorded)
    }

    /// Queues a step on the model and its moments, which lie where steps are computed; gives the losses of each score.
    pub fn run(
        &mut self,
        (model, moments): (&mut Model, &mut [Moments]),
        batch: &Batch,
        noise: Noise,
        update: Update,
    ) -> Result<Queued> {
        if let Some(gpu) = &self.gpu {
            batch.arrive(gpu)?;
        }
        if let Some(team) = &mut self.team {
            return team.step((model, moments), batch, noise, update);
        }
        let alone = |losses: Tensor| Ok(Queued { losses: losses.later()?, asked: None });
        let Some(graph) = &mut self.graph else {
            return alone(step(model, moments, batch, noise, update)?);
        };
        let network = model.config().network;
        if !network.records() {
            return Err(Error::invalid(format!(
                "steps of `{network}` cannot be recorded as graphs: leave out --graph"
            )));
        }
        // What shares its memory is copied before it is changed, which must not be left to a recording that may not run.
        let moments_of = moments.iter_mut().flat_map(|Moments { first, second }| [first, second]);
        model.parameters_mut().tensors_mut().iter_mut().chain(moments_of).try_for_each(|t| t.both_mut().map(drop))?;
        alone(graph.run(|| step(model, moments, batch, noise, update))?)
    }
}

impl Team {
    /// The same of a part of a batch on each rank: all take the step of the whole. The gradients behind the projection of the
    /// features are on their way while its own, which are most of the work, are computed.
    fn step(
        &mut self,
        (model, moments): (&mut Model, &mut [Moments]),
        batch: &Batch,
        noise: Noise,
        Update { adamw, number, weight }: Update,
    ) -> Result<Queued> {
        let asked = Tensor::filled([1], u8::from(interrupt::asked()).into(), model.gpu())?;
        let mut numbers = Vec::new();
        let start = |early: Vec<(usize, Tensor)>| {
            let (of, gradients) = early.into_iter().unzip();
            numbers = of;
            self.reduce.start(gradients)
        };
        let computed = model.gradients_in_two(Tape::recording(), batch, Some(noise), weight, start)?;
        let mut gradients = computed.gradients;
        let is_early: Vec<bool> = (0..gradients.len()).map(|number| numbers.contains(&number)).collect();
        let late = || (0..is_early.len()).filter(|&number| !is_early[number]);
        let weighted = Sum { coefficients: vec![weight] };
        let losses = Tape::inference().apply(weighted, &[&Var::constant(computed.losses)])?.into_tensor();
        self.reduce.start(late().map(|number| gradients[number].clone()).chain([losses, asked]).collect())?;
        let waiting = Instant::now();
        let [early, mut sums] = [self.reduce.finish()?, self.reduce.finish()?];
        self.waited += waiting.elapsed();
        let (asked, losses) = (sums.pop().map(Tensor::later).transpose()?, sums.pop());
        let losses = losses.ok_or_else(|| Error::Rank("the losses of a step were not added up".into()))?;
        for (number, sum) in numbers.iter().copied().zip(early).chain(late().zip(sums)) {
            gradients[number] = sum;
        }
        let _span = (span!("optimizer"), on_device(model.gpu(), "optimizer", ""));
        adamw.step(number, model.parameters_mut().tensors_mut(), &gradients, moments)?;
        Ok(Queued { losses: losses.later()?, asked })
    }
}

/// Forward, backward and AdamW; gives the losses, where they were computed.
fn step(
    model: &mut Model,
    moments: &mut [Moments],
    batch: &Batch,
    noise: Noise,
    Update { adamw, number, weight }: Update,
) -> Result<Tensor> {
    let result = model.gradients_in_two(Tape::recording(), batch, Some(noise), weight, |_| Ok(()))?;
    let _span = (span!("optimizer"), on_device(model.gpu(), "optimizer", ""));
    adamw.step(number, model.parameters_mut().tensors_mut(), &result.gradients, moments)?;
    Ok(result.losses)
}
