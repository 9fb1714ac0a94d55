//! Scores of one mention against prepared entities on a CUDA device: a copy and a kernel (kernels/link.cu) that writes the scores
//! to the host's memory, launched as one graph.

mod times;

pub use times::LinkTimes;

use bytemuck::{Pod, Zeroable};

use super::attention::Apart;
use super::entities::EntityIndex;
use super::prepared::PreparedMention;
use super::scorer::Scorer;
use crate::bytes::Bytes;
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::device::cuda::{DeviceBuffer, Graph, Grid, Pinned, Ptr};
use crate::error::{Error, Result};
use crate::model::ScoreKind;
use crate::ops::layer_norm::LayerNorm;
use crate::tensor::{Element, Tensor};

/// Threads of a block of the kernel.
const THREADS: usize = 512;

/// Candidates of a block where a device has fewer multiprocessors than candidates, and vectors have at most so many values.
const PAIRS: usize = 2;
const NARROW: usize = 128;

/// Words in front of the candidates: their number, and the mention's rows of each modality.
const HEADER: usize = 4;

/// Rows that the recorded launch has room for grow in these steps: all of them are copied with each mention.
const ROWS: usize = 16;

/// Candidates that it has room for at least.
const CANDIDATES: usize = 16;

/// Shared memory that every device from compute capability 8.0 on gives to one block.
const MOST_SHARED: usize = 99 << 10;

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ModalityArgs {
    rows: Ptr,
    logits: Ptr,
    queries: Ptr,
    starts: Ptr,
    value: Ptr,
    value_bias: Ptr,
    out: Ptr,
    out_bias: Ptr,
    gamma: Ptr,
    beta: Ptr,
    own_rows: i32,
    own_logits: i32,
    own_query: i32,
    score: i32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct MlpArgs {
    hidden: Ptr,
    hidden_bias: Ptr,
    out: Ptr,
    out_bias: Ptr,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct FusedArgs {
    vectors: Ptr,
    own: i32,
    score: i32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct LinkArgs {
    header: Ptr,
    candidates: Ptr,
    mention: Ptr,
    scores: Ptr,
    modalities: [ModalityArgs; 2],
    star: [MlpArgs; 2],
    fused: [FusedArgs; 3],
    capacity: i32,
    d: i32,
    heads: i32,
    modality_count: i32,
    fused_count: i32,
    star_score: i32,
    eps: f32,
    padding: i32,
}

/// A model's weights on a device, in the form that scoring pairs needs.
#[derive(Debug)]
pub struct GpuScorer {
    gpu: Gpu,
    kinds: Vec<ScoreKind>,
    d: usize,
    heads: usize,
    eps: f32,
    finish: Vec<(ScoreKind, FinishWeights)>,
    star: Option<[MlpWeights; 2]>,
    recorded: Option<Graph<Recorded>>,
}

#[derive(Debug)]
struct FinishWeights {
    value: [DeviceBuffer<f32>; 2],
    out: Option<[DeviceBuffer<f32>; 2]>,
    norm: [DeviceBuffer<f32>; 2],
}

#[derive(Debug)]
struct MlpWeights([DeviceBuffer<f32>; 4]);

/// What the recorded launch works on.
#[derive(Debug)]
struct Recorded {
    room: Room,
    tables: Vec<Tensor>,
    /// First row of each entity, per modality.
    _starts: Vec<DeviceBuffer<u32>>,
    /// Header, candidates and the mention's floats: written by the host, copied by the launch.
    input: (Pinned<u32>, DeviceBuffer<u32>),
    /// Scores (kinds, candidates), which the kernel writes.
    output: Pinned<f32>,
    /// What scores.
    kernel: &'static str,
    grid: Grid,
    args: LinkArgs,
}

impl Recorded {
    /// Queues the copy to the device and the kernel; `between` is called before each of them and after the last.
    fn queue(&self, gpu: &Gpu, mut between: impl FnMut() -> Result<()>) -> Result<()> {
        between()?;
        self.input.0.copy_to(&self.input.1)?;
        between()?;
        gpu.launch(self.kernel, self.grid, &self.args)?;
        between()
    }
}

/// How much a recorded launch has room for.
#[derive(Clone, Debug, PartialEq)]
struct Room {
    candidates: usize,
    /// Rows of the mention, per modality.
    rows: Vec<usize>,
}

impl Room {
    /// For so many candidates and rows of the mention; never less than there was, or two mentions might take turns to need more.
    fn new(candidates: usize, rows: &[usize], before: Option<&Room>) -> Room {
        let least = before.map_or(CANDIDATES, |before| before.candidates);
        let grown =
            |(m, rows): (usize, &usize)| rows.next_multiple_of(ROWS).max(before.map_or(0, |before| before.rows[m]));
        Room {
            candidates: candidates.next_power_of_two().max(least),
            rows: rows.iter().enumerate().map(grown).collect(),
        }
    }

    fn holds(&self, candidates: usize, rows: &[usize]) -> bool {
        candidates <= self.candidates && rows.iter().zip(&self.rows).all(|(rows, room)| rows <= room)
    }

    /// Where each modality's rows, logit vectors and query begin among the mention's floats, and where Fusion's vectors do.
    fn places(&self, d: usize, heads: usize) -> (Vec<[usize; 3]>, usize) {
        let mut at = 0;
        let modality = |rows: &usize| {
            let start = at;
            at += rows * d + heads * d + d;
            [start, start + rows * d, start + (rows + heads) * d]
        };
        let places = self.rows.iter().map(modality).collect();
        (places, at)
    }
}

impl GpuScorer {
    /// Copies the weights of a scorer to a device.
    pub fn new(scorer: &Scorer, gpu: &Gpu) -> Result<GpuScorer> {
        let (d, heads) = (scorer.d, scorer.heads);
        LayerNorm::check(d)?;
        let upload = |values: &[f32]| gpu.upload("scoring weights", values);
        let mut finish = Vec::new();
        for (kind, weights) in &scorer.finish {
            let (value, out) = match &weights.layers.apart {
                None => {
                    let dense = &weights.layers.folded[0];
                    ([upload(dense.transposed())?, upload(dense.bias())?], None)
                }
                Some(Apart { values, out }) => {
                    let c = d / heads;
                    let mut all = Buffer::zeros(d * d);
                    for (h, head) in values.iter().enumerate() {
                        for (row, from) in all.chunks_exact_mut(d).zip(head.transposed().chunks_exact(c)) {
                            row[h * c..][..c].copy_from_slice(from);
                        }
                    }
                    let bias: Vec<f32> = values.iter().flat_map(|head| head.bias()).copied().collect();
                    ([upload(&all)?, upload(&bias)?], Some([upload(out.transposed())?, upload(out.bias())?]))
                }
            };
            let norm = [upload(&weights.gamma)?, upload(&weights.beta)?];
            finish.push((*kind, FinishWeights { value, out, norm }));
        }
        let mlp = |layers: &super::scorer::Layers2| -> Result<MlpWeights> {
            let (hidden, out) = (&layers.0, &layers.1);
            let [a, b, c, d] = [hidden.transposed(), hidden.bias(), out.transposed(), out.bias()].map(upload);
            Ok(MlpWeights([a?, b?, c?, d?]))
        };
        let star = match &scorer.star {
            Some([mention, entity]) => Some([mlp(mention)?, mlp(entity)?]),
            None => None,
        };
        let (gpu, kinds) = (gpu.clone(), scorer.kinds.clone());
        Ok(GpuScorer { gpu, kinds, d, heads, eps: scorer.eps, finish, star, recorded: None })
    }

    /// Scores (kinds, candidates) of a mention against entities of the index. The index is copied to the device when first
    /// used, and again after it grew.
    pub fn score(&mut self, mention: PreparedMention, index: &EntityIndex, candidates: &[u32]) -> Result<Vec<f32>> {
        let n = candidates.len();
        if n == 0 {
            return Ok(Vec::new());
        }
        if let Some(beyond) = candidates.iter().find(|&&c| c as usize >= index.len()) {
            return Err(Error::shape("link", format!("entity {beyond} of an index of {}", index.len())));
        }
        let rows: Vec<usize> = mention.side.modalities.iter().map(|m| m.sequences.range(mention.item).len()).collect();
        let tables = self.tables(index)?;
        let fits = |graph: &Graph<Recorded>| {
            let Recorded { room, tables: before, .. } = graph.kept();
            room.holds(n, &rows)
                && before.len() == tables.len()
                && before.iter().zip(&tables).all(|(before, now)| before.address() == now.address())
        };
        let before = self.recorded.take();
        let graph = match before {
            Some(graph) if fits(&graph) => graph,
            before => {
                let room = Room::new(n, &rows, before.as_ref().map(|graph| &graph.kept().room));
                self.record(index, tables, room)?
            }
        };
        let Recorded { room, input, output, .. } = graph.kept();
        input.0.with(|words| self.write(words, room, mention, candidates, &rows))?;
        graph.launch()?;
        let scores = output.with(|scores| {
            let of_kind = |kind: usize| scores[kind * room.candidates..][..n].iter();
            (0..self.kinds.len()).flat_map(of_kind).copied().collect()
        })?;
        self.recorded = Some(graph);
        Ok(scores)
    }

    /// The index's tables on the device: rows, logit vectors and queries of each modality, then Fusion's vectors.
    fn tables(&self, index: &EntityIndex) -> Result<Vec<Tensor>> {
        let of_modalities = index.modalities.iter().flat_map(|m| [&m.tokens, &m.logits, &m.queries]);
        let all = of_modalities.chain(index.fused.iter().map(|(_, table)| table));
        all.map(|table| {
            let no_room = || {
                let bytes = table.rows() * table.width() * table.value_bytes();
                let reason = format!(
                    "the index of {} entities has a table of {}, and a table may take {} % of the free memory; raise \
                     --feature-memory, or use --device cpu",
                    index.len(),
                    Bytes::of(bytes),
                    self.gpu.resident_percent()
                );
                Error::device(format!("{:?}", self.gpu), "copying the entity index", reason)
            };
            table.resident(&self.gpu)?.ok_or_else(no_room)
        })
        .collect()
    }

    /// Puts the mention where the launch copies it from.
    fn write(&self, words: &mut [u32], room: &Room, mention: PreparedMention, candidates: &[u32], rows: &[usize]) {
        let (d, width) = (self.d, self.heads * self.d);
        let (header, rest) = words.split_at_mut(HEADER);
        let (list, floats) = rest.split_at_mut(room.candidates);
        header[0] = candidates.len() as u32;
        header[1..].iter_mut().zip(rows).for_each(|(to, &rows)| *to = rows as u32);
        list[..candidates.len()].copy_from_slice(candidates);
        let floats: &mut [f32] = bytemuck::cast_slice_mut(floats);
        let (places, fused) = room.places(d, self.heads);
        for (modality, [tokens, logits, query]) in mention.side.modalities.iter().zip(places) {
            let range = modality.sequences.range(mention.item);
            let own = &modality.tokens.data()[range.start * d..range.end * d];
            floats[tokens..][..own.len()].copy_from_slice(own);
            floats[logits..][..width].copy_from_slice(&modality.logits.data()[mention.item * width..][..width]);
            floats[query..][..d].copy_from_slice(&modality.queries.data()[mention.item * d..][..d]);
        }
        for ((_, vectors), to) in mention.side.fused.iter().zip(floats[fused..].chunks_exact_mut(d)) {
            to.copy_from_slice(&vectors.data()[mention.item * d..][..d]);
        }
    }

    /// Records copies and kernel for mentions and lists of this size.
    fn record(&self, index: &EntityIndex, tables: Vec<Tensor>, room: Room) -> Result<Graph<Recorded>> {
        let gpu = &self.gpu;
        let (d, heads, kinds) = (self.d, self.heads, self.kinds.len());
        // A candidate each, where there are multiprocessors for all, or where two need more memory than there is or are wide.
        let shared = |pairs: usize| 4 * 2 * pairs * (2 * heads * d + 3 * 2 * d + 4 * THREADS);
        let together = d <= NARROW && shared(PAIRS) <= MOST_SHARED;
        let pairs = match together && room.candidates > gpu.multiprocessors()? {
            true => PAIRS,
            false => 1,
        };
        let shared = shared(pairs);
        if shared > MOST_SHARED {
            let reason = format!(
                "{heads} heads of a model of width {d} need {shared} bytes of shared memory, and there are {MOST_SHARED}; use --device cpu"
            );
            return Err(Error::device(format!("{gpu:?}"), "link", reason));
        }
        let (places, fused_at) = room.places(d, heads);
        let words = HEADER + room.candidates + fused_at + index.fused.len() * d;
        let starts =
            index.modalities.iter().map(|m| gpu.upload("entity rows", &m.starts)).collect::<Result<Vec<_>>>()?;
        let input = (gpu.pinned(words)?, gpu.alloc("a mention", words)?);
        let output = gpu.pinned(kinds * room.candidates)?;
        let header = input.1.ptr();
        let place_of = |kind: &ScoreKind| self.kinds.iter().position(|k| k == kind).map_or(-1, |at| at as i32);

        let mut modalities = [ModalityArgs::zeroed(); 2];
        for (m, (kind, weights)) in self.finish.iter().enumerate() {
            let [rows, logits, queries] = [0, 1, 2].map(|part| tables[3 * m + part].address());
            let [out, out_bias] = weights.out.as_ref().map_or([Ptr::NULL; 2], |out| out.each_ref().map(|b| b.ptr()));
            let [own_rows, own_logits, own_query] = places[m].map(|at| at as i32);
            modalities[m] = ModalityArgs {
                rows,
                logits,
                queries,
                starts: starts[m].ptr(),
                value: weights.value[0].ptr(),
                value_bias: weights.value[1].ptr(),
                out,
                out_bias,
                gamma: weights.norm[0].ptr(),
                beta: weights.norm[1].ptr(),
                own_rows,
                own_logits,
                own_query,
                score: place_of(kind),
            };
        }
        let mut star = [MlpArgs::zeroed(); 2];
        for (args, MlpWeights(weights)) in star.iter_mut().zip(self.star.iter().flatten()) {
            let [hidden, hidden_bias, out, out_bias] = weights.each_ref().map(|b| b.ptr());
            *args = MlpArgs { hidden, hidden_bias, out, out_bias };
        }
        let mut fused = [FusedArgs::zeroed(); 3];
        for (f, ((kind, _), args)) in index.fused.iter().zip(&mut fused).enumerate() {
            let vectors = tables[3 * index.modalities.len() + f].ptr();
            *args = FusedArgs { vectors, own: (fused_at + f * d) as i32, score: place_of(kind) };
        }
        let args = LinkArgs {
            header,
            candidates: header.offset::<u32>(HEADER),
            mention: header.offset::<u32>(HEADER + room.candidates),
            scores: output.ptr(),
            modalities,
            star,
            fused,
            capacity: room.candidates as i32,
            d: d as i32,
            heads: heads as i32,
            modality_count: self.finish.len() as i32,
            fused_count: index.fused.len() as i32,
            star_score: if self.star.is_some() { place_of(&ScoreKind::FissionStar) } else { -1 },
            eps: self.eps,
            padding: 0,
        };
        let half = index.modalities.iter().zip(tables.chunks(3)).any(|(_, tables)| tables[0].element() == Element::F16);
        let kernel = match (half, d <= NARROW, pairs) {
            (true, true, 1) => "link_f16_128_1",
            (true, true, _) => "link_f16_128_2",
            (true, false, _) => "link_f16_256_1",
            (false, true, 1) => "link_f32_128_1",
            (false, true, _) => "link_f32_128_2",
            (false, false, _) => "link_f32_256_1",
        };
        let grid =
            Grid { blocks: [room.candidates.div_ceil(pairs), 1, 1], threads: THREADS as u32, shared: shared as u32 };
        let kept = Recorded { room, tables, _starts: starts, input, output, kernel, grid, args };
        gpu.record(kept, |recorded| recorded.queue(gpu, || Ok(())))
    }
}
