//! From features to scores: prepared and scored as one graph, of which the host waits for nothing but the scores.

use std::sync::Arc;

use super::super::entities::EntityIndex;
use super::super::prepared::{PreparedModality, PreparedSide};
use super::GpuScorer;
use super::room::room_for;
use super::tables::Tables;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Graph, Pinned, Ptr};
use crate::error::{Error, Result};
use crate::model::placed::PlacedSide;
use crate::model::{Model, Side};
use crate::ops::link::{HEADER, Launch, Mention, Scores};
use crate::tensor::Tensor;

/// Rows of the features of all graphs that are kept beside the last: as many as a hundred mentions have.
const ROWS_KEPT: usize = 8192;

/// What a graph works on.
#[derive(Debug)]
pub(super) struct FromFeatures {
    /// Where the features lie.
    placed: PlacedSide,
    /// Candidates of each mention that there is room for.
    capacity: usize,
    /// Features, then header and candidates of each mention: written by the host, copied by the graph.
    input: (Pinned<u8>, Arc<DeviceBuffer<u8>>),
    /// Scores (mentions, kinds, capacity), which the kernels write.
    output: Pinned<f32>,
    model: Model,
    tables: Arc<Tables>,
}

impl FromFeatures {
    fn new(gpu: &Gpu, kinds: usize, like: &Side, capacity: usize, model: &Model, tables: Arc<Tables>) -> Result<Self> {
        let mentions = like.text.sequences.len();
        let bytes = PlacedSide::bytes(like)? + mentions * (HEADER + capacity) * size_of::<u32>();
        let input = (gpu.pinned(bytes)?, Arc::new(gpu.alloc("mentions", bytes)?));
        let (placed, output) = (PlacedSide::new(like, &input.1)?, gpu.pinned(mentions * kinds * capacity)?);
        // What is recorded needs nothing more than what is there by then.
        placed.side().arrive(gpu)?;
        Ok(FromFeatures { placed, capacity, input, output, model: model.clone(), tables })
    }

    fn mentions(&self) -> usize {
        self.placed.side().text.sequences.len()
    }

    fn rows(&self) -> usize {
        let Side { text, image } = self.placed.side();
        text.sequences.rows() + image.sequences.rows()
    }

    /// Where the numbers of a mention begin among the bytes that are copied.
    fn header(&self, mention: usize) -> usize {
        self.input.1.len() - (self.mentions() - mention) * (HEADER + self.capacity) * size_of::<u32>()
    }

    /// Puts features, candidates and the mentions' numbers of rows where the graph copies them from.
    fn write(&self, side: &Side, lists: &[&[u32]]) -> Result<()> {
        let parts = self.model.config().parts();
        self.input.0.with(|bytes| {
            self.placed.put(side, bytes)?;
            let words: &mut [u32] = bytemuck::cast_slice_mut(&mut bytes[self.header(0)..]);
            for (i, (words, list)) in words.chunks_exact_mut(HEADER + self.capacity).zip(lists).enumerate() {
                let (header, candidates) = words.split_at_mut(HEADER);
                header[0] = list.len() as u32;
                let modalities = [(&side.text, parts.text), (&side.image, parts.image)];
                for (to, (modality, _)) in header[1..].iter_mut().zip(modalities.iter().filter(|(_, there)| *there)) {
                    *to = modality.sequences.range(i).len() as u32;
                }
                candidates[..list.len()].copy_from_slice(list);
            }
            Ok(())
        })?
    }
}

/// Whether two models have their weights in the same places of a device.
fn same_weights(one: &Model, other: &Model) -> bool {
    let [one, other] = [one, other].map(|model| model.parameters().tensors().iter().map(Tensor::address));
    one.eq(other)
}

impl GpuScorer {
    /// Scores (kinds, candidates) of each mention of a side against its list of candidates: what [`PreparedSide::new`] and
    /// [`GpuScorer::score`] give, but the prepared mentions stay on the device, where the model's weights must lie, too. A kernel
    /// that stays takes no part. Features of sequences that are as long as some before need nothing but the launch of their graph.
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
        // Graphs of other weights or of an index that has grown are of no use any more. All that are kept are of the same.
        let serves = |graph: &Graph<FromFeatures>| {
            let FromFeatures { model: before, tables: of, .. } = graph.kept();
            Arc::ptr_eq(of, &tables) && same_weights(before, model)
        };
        if !self.from_features.first().is_some_and(serves) {
            self.from_features.clear();
        }
        let fits = |graph: &Graph<FromFeatures>| longest <= graph.kept().capacity && graph.kept().placed.holds(side);
        let graph = match self.from_features.iter().position(fits) {
            Some(at) => self.from_features.remove(at),
            None => self.record_features(model, side, longest, tables)?,
        };
        let FromFeatures { capacity, output, .. } = graph.kept();
        graph.kept().write(side, lists)?;
        graph.launch()?;
        let scores = output.with(|written| {
            let of_mention = |(written, list): (&[f32], &&[u32])| self.scores_of(written, *capacity, list.len());
            written.chunks_exact(self.kinds.len() * capacity).zip(lists).map(of_mention).collect()
        });
        self.keep(graph);
        scores
    }

    /// Keeps a graph for the next features of its shape, and of the others those that were used last.
    fn keep(&mut self, graph: Graph<FromFeatures>) {
        self.from_features.insert(0, graph);
        let mut rows = 0;
        let few = |graph: &&Graph<FromFeatures>| {
            rows += graph.kept().rows();
            rows <= ROWS_KEPT
        };
        let kept = self.from_features.iter().take_while(few).count();
        self.from_features.truncate(kept.max(1));
    }

    /// Records what prepares and scores mentions of the shape of these.
    fn record_features(
        &self,
        model: &Model,
        like: &Side,
        longest: usize,
        tables: Arc<Tables>,
    ) -> Result<Graph<FromFeatures>> {
        let (gpu, kinds) = (&self.gpu, self.kinds.len());
        let kept = FromFeatures::new(gpu, kinds, like, room_for(longest, 0), model, tables)?;
        gpu.record(kept, |kept| {
            let FromFeatures { placed, capacity, input, output, model, tables } = kept;
            input.0.copy_to(&input.1)?;
            let prepared = PreparedSide::computed(model, placed.side())?.scaled(gpu)?;
            (0..kept.mentions()).try_for_each(|i| {
                let header = input.1.ptr().offset::<u8>(kept.header(i));
                let place = self.computed_place(&prepared, i, header);
                let scores = Scores { at: output.ptr().offset::<f32>(i * kinds * capacity), capacity: *capacity };
                let Launch { kernel, grid, args } =
                    self.weights.launch_of(gpu, &tables.entities(), &place, scores, false)?;
                gpu.launch(kernel, grid, &args)
            })
        })
    }

    /// Where a mention lies that was prepared on the device.
    fn computed_place(&self, prepared: &PreparedSide, item: usize, header: Ptr) -> Mention {
        let (d, width) = (self.weights.d, self.weights.heads * self.weights.d);
        let modality = |m: &PreparedModality| {
            let first = m.sequences.range(item).start;
            [(&m.tokens, first * d), (&m.logits, item * width), (&m.queries, item * d)]
                .map(|(tensor, at)| tensor.address().offset::<f32>(at))
        };
        Mention {
            header,
            candidates: header.offset::<u32>(HEADER),
            modalities: prepared.modalities.iter().map(modality).collect(),
            fused: prepared.fused.iter().map(|(_, vectors)| vectors.address().offset::<f32>(item * d)).collect(),
        }
    }
}
