//! A launch that is recorded once and serves any mention that it has room for.

use std::sync::Arc;

use super::GpuScorer;
use super::room::{Asked, Room};
use super::tables::Tables;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Graph, Pinned};
use crate::error::Result;
use crate::ops::link::{Launch, Scores};

/// What the recorded launch works on.
#[derive(Debug)]
pub(super) struct Recorded {
    room: Room,
    tables: Arc<Tables>,
    /// A mention and its candidates: written by the host, copied by the launch.
    input: (Pinned<u32>, DeviceBuffer<u32>),
    /// Scores (kinds, candidates), which the kernel writes.
    output: Pinned<f32>,
    /// What scores.
    launch: Launch,
}

impl Recorded {
    /// Queues the copy to the device and the kernel; `between` is called before each of them and after the last.
    pub fn queue(&self, gpu: &Gpu, mut between: impl FnMut() -> Result<()>) -> Result<()> {
        between()?;
        self.input.0.copy_to(&self.input.1)?;
        between()?;
        gpu.launch(self.launch.kernel, self.launch.grid, &self.launch.args)?;
        between()
    }
}

impl GpuScorer {
    /// Scores by a recorded launch.
    pub(super) fn score_recorded(&mut self, tables: Arc<Tables>, asked: &Asked) -> Result<Vec<f32>> {
        let fits = |graph: &Graph<Recorded>| {
            let Recorded { room, tables: before, .. } = graph.kept();
            room.holds(asked) && Arc::ptr_eq(before, &tables)
        };
        let graph = match self.recorded.take() {
            Some(graph) if fits(&graph) => graph,
            before => {
                let room = Room::new(asked, before.as_ref().map(|graph| &graph.kept().room));
                self.record(tables, room)?
            }
        };
        let Recorded { room, input, output, .. } = graph.kept();
        input.0.with(|words| self.write(words, room, asked))?;
        graph.launch()?;
        let scores = output.with(|scores| self.scores_of(scores, room.candidates, asked.candidates.len()))?;
        self.recorded = Some(graph);
        Ok(scores)
    }

    /// Records copy and kernel for mentions and lists of this size.
    fn record(&self, tables: Arc<Tables>, room: Room) -> Result<Graph<Recorded>> {
        let (gpu, fused) = (&self.gpu, tables.entities().fused.len());
        let words = self.words(&room, fused);
        let input = (gpu.pinned(words)?, gpu.alloc("a mention", words)?);
        let output = gpu.pinned(self.kinds.len() * room.candidates)?;
        let scores = Scores { at: output.ptr(), capacity: room.candidates };
        let launch = self.weights.launch_of(
            gpu,
            &tables.entities(),
            &self.place_of(&room, fused, input.1.ptr()),
            scores,
            false,
        )?;
        gpu.record(Recorded { room, tables, input, output, launch }, |recorded| recorded.queue(gpu, || Ok(())))
    }
}
