//! Optimizer steps: forward, backward and AdamW of a batch, queued without waiting for the device.

use crate::device::Gpu;
use crate::device::cuda::{Recorded, Repeating};
use crate::error::{Error, Result};
use crate::model::{Batch, Model, Noise};
use crate::ops::{AdamW, Moments};
use crate::span;
use crate::tensor::{Later, Tensor};
use crate::trace::on_device;

/// Where steps are computed, and how they are queued.
#[derive(Debug)]
pub struct Steps {
    gpu: Option<Gpu>,
    graph: Option<Repeating>,
}

/// One step of the optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The optimizer's settings for this step.
    pub adamw: AdamW,
    /// The step's number, from 1.
    pub number: u64,
}

impl Steps {
    /// Steps on a device or the host. With `graphs`, a device gets each step as one CUDA graph, not kernel by kernel; the
    /// results are the same.
    pub fn new(gpu: Option<&Gpu>, graphs: bool) -> Result<Steps> {
        if graphs && gpu.is_none() {
            return Err(Error::invalid("--graph is for CUDA devices; leave it out, or take --device cuda"));
        }
        Ok(Steps { graph: gpu.filter(|_| graphs).map(Gpu::repeating), gpu: gpu.cloned() })
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
    ) -> Result<Later> {
        if let Some(gpu) = &self.gpu {
            batch.arrive(gpu)?;
        }
        let Some(graph) = &mut self.graph else {
            return step(model, moments, batch, noise, update)?.later();
        };
        let network = model.config().network;
        if !network.records() {
            return Err(Error::invalid(format!(
                "steps of `{network}` cannot be recorded as graphs: leave out --graph"
            )));
        }
        // What shares its memory is copied before it is changed, which must not be left to a recording that may not run.
        let moments_of = moments.iter_mut().flat_map(|Moments { first, second }| [first, second]);
        model.parameters_mut().tensors_mut().iter_mut().chain(moments_of).try_for_each(|t| t.ptr_mut().map(drop))?;
        graph.run(|| step(model, moments, batch, noise, update))?.later()
    }
}

/// Forward, backward and AdamW; gives the losses, where they were computed.
fn step(
    model: &mut Model,
    moments: &mut [Moments],
    batch: &Batch,
    noise: Noise,
    Update { adamw, number }: Update,
) -> Result<Tensor> {
    let result = model.gradients(batch, Some(noise))?;
    let _span = (span!("optimizer"), on_device(model.gpu(), "optimizer", ""));
    adamw.step(number, model.parameters_mut().tensors_mut(), &result.gradients, moments)?;
    Ok(result.losses)
}
