//! What kernels/link.cu takes, and how it is launched.

use bytemuck::{Pod, Zeroable};

use super::GpuScorer;
use super::tables::Tables;
use crate::device::cuda::{Grid, Ptr, ResidentArgs, Stays};
use crate::error::{Error, Result};
use crate::model::ScoreKind;

/// Threads of a block of the kernel.
const THREADS: usize = 512;

/// Candidates of a block where a device has fewer multiprocessors than candidates, and vectors have at most so many values.
const PAIRS: usize = 2;
const NARROW: usize = 128;

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
    own_rows: Ptr,
    own_logits: Ptr,
    own_query: Ptr,
    score: i32,
    padding: i32,
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
    own: Ptr,
    score: i32,
    padding: i32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LinkArgs {
    resident: ResidentArgs,
    header: Ptr,
    candidates: Ptr,
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

impl Stays for LinkArgs {
    fn resident(&mut self) -> &mut ResidentArgs {
        &mut self.resident
    }
}

/// Where the kernel finds a mention on the device.
pub(super) struct Place {
    /// Number of candidates, then of the mention's rows of each modality.
    pub header: Ptr,
    pub candidates: Ptr,
    /// Rows, logit vectors and query of each modality.
    pub modalities: Vec<[Ptr; 3]>,
    /// Fusion's vectors.
    pub fused: Vec<Ptr>,
}

/// Where it puts the scores (kinds, capacity).
#[derive(Clone, Copy)]
pub(super) struct Scores {
    pub at: Ptr,
    pub capacity: usize,
}

/// The kernel with its arguments.
#[derive(Debug)]
pub(super) struct Launch {
    pub kernel: &'static str,
    pub grid: Grid,
    pub args: LinkArgs,
}

impl GpuScorer {
    /// A launch that scores a mention against up to `capacity` candidates. One that `stays` leaves room for other work.
    pub(super) fn launch_of(&self, tables: &Tables, mention: &Place, scores: Scores, stays: bool) -> Result<Launch> {
        let (gpu, d, heads) = (&self.gpu, self.d, self.heads);
        let multiprocessors = gpu.multiprocessors()?;
        // A candidate each, where there are multiprocessors for all, or where two need more memory than there is or are wide.
        let shared = |pairs: usize| 4 * 2 * pairs * (2 * heads * d + 3 * 2 * d + 4 * THREADS);
        let together = d <= NARROW && shared(PAIRS) <= MOST_SHARED;
        let pairs = if together && (stays || scores.capacity > multiprocessors) { PAIRS } else { 1 };
        let shared = shared(pairs);
        if shared > MOST_SHARED {
            let reason = format!(
                "{heads} heads of a model of width {d} need {shared} bytes of shared memory, and there are {MOST_SHARED}; use --device cpu"
            );
            return Err(Error::device(format!("{gpu:?}"), "link", reason));
        }
        let place_of = |kind: &ScoreKind| self.kinds.iter().position(|k| k == kind).map_or(-1, |at| at as i32);
        let mut modalities = [ModalityArgs::zeroed(); 2];
        for (m, (kind, weights)) in self.finish.iter().enumerate() {
            let [rows, logits, queries, starts] = tables.modality(m);
            let [out, out_bias] = weights.out.as_ref().map_or([Ptr::NULL; 2], |out| out.each_ref().map(|b| b.ptr()));
            let [own_rows, own_logits, own_query] = mention.modalities[m];
            modalities[m] = ModalityArgs {
                rows,
                logits,
                queries,
                starts,
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
                padding: 0,
            };
        }
        let mut star = [MlpArgs::zeroed(); 2];
        for (args, weights) in star.iter_mut().zip(self.star.iter().flatten()) {
            let [hidden, hidden_bias, out, out_bias] = weights.0.each_ref().map(|b| b.ptr());
            *args = MlpArgs { hidden, hidden_bias, out, out_bias };
        }
        let mut fused = [FusedArgs::zeroed(); 3];
        for (((kind, vectors), own), args) in tables.fused().zip(&mention.fused).zip(&mut fused) {
            *args = FusedArgs { vectors, own: *own, score: place_of(&kind), padding: 0 };
        }
        let args = LinkArgs {
            resident: ResidentArgs::NONE,
            header: mention.header,
            candidates: mention.candidates,
            scores: scores.at,
            modalities,
            star,
            fused,
            capacity: scores.capacity as i32,
            d: d as i32,
            heads: heads as i32,
            modality_count: self.finish.len() as i32,
            fused_count: tables.fused().count() as i32,
            star_score: if self.star.is_some() { place_of(&ScoreKind::FissionStar) } else { -1 },
            eps: self.eps,
            padding: 0,
        };
        let kernel = match (tables.half(), d <= NARROW, pairs) {
            (true, true, 1) => "link_f16_128_1",
            (true, true, _) => "link_f16_128_2",
            (true, false, _) => "link_f16_256_1",
            (false, true, 1) => "link_f32_128_1",
            (false, true, _) => "link_f32_128_2",
            (false, false, _) => "link_f32_256_1",
        };
        let blocks = scores.capacity.div_ceil(pairs);
        let blocks = if stays { blocks.min((multiprocessors - multiprocessors / 4).max(1)) } else { blocks };
        let grid = Grid { blocks: [blocks, 1, 1], threads: THREADS as u32, shared: shared as u32 };
        Ok(Launch { kernel, grid, args })
    }
}
