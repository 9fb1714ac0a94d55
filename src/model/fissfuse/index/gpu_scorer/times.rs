//! What scoring a mention on a device is made of.

use std::time::Instant;

use derive_more::AddAssign;

use super::{EntityIndex, GpuScorer, PreparedMention};
use crate::error::{Error, Result};

/// Seconds that scoring takes on a device, part by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, AddAssign)]
pub struct LinkTimes {
    /// The host, to give the device its work as one graph.
    pub enqueue: f64,
    /// The mention's and the candidates' copy to the device.
    pub copy_in: f64,
    /// The kernel, which writes the scores to the host's memory.
    pub device: f64,
}

impl GpuScorer {
    /// What [`GpuScorer::score`] takes, part by part: launched as it does, and then each by itself between the device's events,
    /// with all of it queued before the first begins. Fails where a kernel stays, which is not launched.
    pub fn times(&mut self, mention: PreparedMention, index: &EntityIndex, candidates: &[u32]) -> Result<LinkTimes> {
        if self.is_resident() {
            return Err(Error::invalid("a kernel that stays on the device is not launched for each mention"));
        }
        self.score(mention, index, candidates)?;
        let Some(graph) = &self.recorded else { return Ok(LinkTimes::default()) };
        let begun = Instant::now();
        graph.launch()?;
        let enqueue = begun.elapsed().as_secs_f64();
        self.gpu.synchronize()?;
        let mut marks = Vec::new();
        self.gpu.delay()?;
        graph.kept().queue(&self.gpu, || {
            marks.extend(self.gpu.mark()?);
            Ok(())
        })?;
        let times = marks.windows(2).map(|pair| pair[1].since(&pair[0])).collect::<Result<Vec<_>>>()?;
        match times[..] {
            [copy_in, device] => Ok(LinkTimes { enqueue, copy_in, device }),
            _ => Err(Error::device(
                format!("{:?}", self.gpu),
                "taking times",
                "a graph is being recorded, which has none",
            )),
        }
    }
}
