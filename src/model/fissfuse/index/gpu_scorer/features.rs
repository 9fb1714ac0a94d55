//! From features to scores: prepared and scored as one graph, of which the host waits for nothing but the scores.

use super::super::entities::EntityIndex;
use super::super::prepared::{PreparedModality, PreparedSide};
use super::GpuScorer;
use super::args::{Launch, Place, Scores};
use super::room::{HEADER, room_for};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Pinned, Ptr, Repeating};
use crate::error::{Error, Result};
use crate::model::{Model, Side};

/// The graph and what it copies.
#[derive(Debug)]
pub(super) struct FromFeatures {
    graph: Repeating,
    mentions: usize,
    /// Candidates of each mention that there is room for.
    capacity: usize,
    /// Header and candidates of each mention: written by the host, copied by the graph.
    input: (Pinned<u32>, DeviceBuffer<u32>),
    /// Scores (mentions, kinds, capacity), which the kernels write.
    output: Pinned<f32>,
}

impl FromFeatures {
    fn new(gpu: &Gpu, kinds: usize, mentions: usize, capacity: usize) -> Result<FromFeatures> {
        let words = mentions * (HEADER + capacity);
        let input = (gpu.pinned(words)?, gpu.alloc("candidates", words)?);
        let output = gpu.pinned(mentions * kinds * capacity)?;
        Ok(FromFeatures { graph: gpu.repeating(), mentions, capacity, input, output })
    }

    /// Puts candidates and the mentions' numbers of rows where the graph copies them from.
    fn write(&self, side: &Side, rows_of: &[bool; 2], lists: &[&[u32]]) -> Result<()> {
        self.input.0.with(|words| {
            for (i, (words, list)) in words.chunks_exact_mut(HEADER + self.capacity).zip(lists).enumerate() {
                let (header, candidates) = words.split_at_mut(HEADER);
                header[0] = list.len() as u32;
                let modalities = [&side.text, &side.image].into_iter().zip(rows_of).filter(|(_, there)| **there);
                for (to, (modality, _)) in header[1..].iter_mut().zip(modalities) {
                    *to = modality.sequences.range(i).len() as u32;
                }
                candidates[..list.len()].copy_from_slice(list);
            }
        })
    }
}

impl GpuScorer {
    /// Scores (kinds, candidates) of each mention of a side against its list of candidates: what [`PreparedSide::new`] and
    /// [`GpuScorer::score`] give, but the prepared mentions stay on the device, where the model's weights must lie, too. A kernel
    /// that stays takes no part.
    pub fn score_features(
        &mut self,
        model: &Model,
        side: &Side,
        index: &EntityIndex,
        lists: &[&[u32]],
    ) -> Result<Vec<Vec<f32>>> {
        let refuse = |reason: String| Err(Error::shape("link", reason));
        let mentions = side.text.sequences.len();
        if lists.len() != mentions {
            return refuse(format!("{} lists of candidates for {mentions} mentions", lists.len()));
        }
        if !model.gpu().is_some_and(|gpu| gpu.is(&self.gpu)) {
            return refuse(format!("a model on {:?} and weights on {:?}", model.gpu(), self.gpu));
        }
        lists.iter().try_for_each(|list| index.has_all(list))?;
        let longest = lists.iter().map(|list| list.len()).max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); mentions]);
        }
        let tables = self.tables(index)?;
        side.arrive(&self.gpu)?;
        let mut from = match self.from_features.take() {
            Some(from) if mentions <= from.mentions && longest <= from.capacity => from,
            before => {
                let (mentions_before, capacity) = before.map_or((0, 0), |before| (before.mentions, before.capacity));
                let (mentions, capacity) = (mentions.max(mentions_before), room_for(longest, capacity));
                FromFeatures::new(&self.gpu, self.kinds.len(), mentions, capacity)?
            }
        };
        let parts = model.config().parts();
        from.write(side, &[parts.text, parts.image], lists)?;
        let FromFeatures { graph, capacity, input, output, .. } = &mut from;
        let (capacity, kinds) = (*capacity, self.kinds.len());
        let work = || {
            input.0.copy_to(&input.1)?;
            let prepared = PreparedSide::computed(model, side)?.scaled(&self.gpu)?;
            (0..mentions).try_for_each(|i| {
                let header = input.1.ptr().offset::<u32>(i * (HEADER + capacity));
                let place = self.computed_place(&prepared, i, header);
                let scores = Scores { at: output.ptr().offset::<f32>(i * kinds * capacity), capacity };
                let Launch { kernel, grid, args } = self.launch_of(&tables, &place, scores, false)?;
                self.gpu.launch(kernel, grid, &args)
            })
        };
        graph.run(work)?;
        let scores = output.with(|written| {
            let of_mention = |(written, list): (&[f32], &&[u32])| self.scores_of(written, capacity, list.len());
            written.chunks_exact(kinds * capacity).zip(lists).map(of_mention).collect()
        });
        self.from_features = Some(from);
        scores
    }

    /// Where a mention lies that was prepared on the device.
    fn computed_place(&self, prepared: &PreparedSide, item: usize, header: Ptr) -> Place {
        let (d, width) = (self.d, self.heads * self.d);
        let modality = |m: &PreparedModality| {
            let first = m.sequences.range(item).start;
            [(&m.tokens, first * d), (&m.logits, item * width), (&m.queries, item * d)]
                .map(|(tensor, at)| tensor.address().offset::<f32>(at))
        };
        Place {
            header,
            candidates: header.offset::<u32>(HEADER),
            modalities: prepared.modalities.iter().map(modality).collect(),
            fused: prepared.fused.iter().map(|(_, vectors)| vectors.address().offset::<f32>(item * d)).collect(),
        }
    }
}
