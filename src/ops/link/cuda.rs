//! What kernels/link.cu takes, and how it is launched.

use bytemuck::{Pod, Zeroable};

use super::{Entities, Mention, Scores, Star, Weights};
use crate::device::Gpu;
use crate::device::cuda::{Grid, MOST_SHARED, Ptr, ResidentArgs, Stays};
use crate::error::{Error, Result};

/// Threads of a block of the kernel.
const THREADS: usize = 512;

/// Candidates of a block where a device has fewer multiprocessors than candidates, and vectors have at most so many values.
const PAIRS: usize = 2;
const NARROW: usize = 128;

/// Shared memory that a launch may ask for on every device: the most of a block, less the few hundred bytes of the kernel's own.
const MOST_ASKED: usize = MOST_SHARED - 512;

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

/// The kernel's argument.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LinkArgs {
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

/// The kernel with its arguments.
#[derive(Debug)]
pub struct Launch {
    pub kernel: &'static str,
    pub grid: Grid,
    pub args: LinkArgs,
}

impl Weights {
    /// A launch that scores a mention against up to as many candidates as there is room for. One that `stays` leaves room on the
    /// device for other work.
    ///
    /// Fails if a device has too little shared memory for vectors of this width.
    pub fn launch_of(
        &self,
        gpu: &Gpu,
        entities: &Entities,
        mention: &Mention,
        scores: Scores,
        stays: bool,
    ) -> Result<Launch> {
        let (d, heads) = (self.d, self.heads);
        let multiprocessors = gpu.multiprocessors();
        // A candidate each, where there are multiprocessors for all, or where two need more memory than there is or are wide.
        let shared = |pairs: usize| 4 * 2 * pairs * (2 * heads * d + 3 * 2 * d + 4 * THREADS);
        let together = d <= NARROW && shared(PAIRS) <= MOST_ASKED;
        let pairs = if together && (stays || scores.capacity > multiprocessors) { PAIRS } else { 1 };
        let shared = shared(pairs);
        if shared > MOST_ASKED {
            let reason = format!(
                "{heads} heads of a model of width {d} need {shared} bytes of shared memory, and there are {MOST_ASKED}; use --device cpu"
            );
            return Err(Error::device(format!("{gpu:?}"), "link", reason));
        }
        let kernel = match (entities.half, d <= NARROW, pairs) {
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
        Ok(Launch { kernel, grid, args: self.args(entities, mention, scores) })
    }

    fn args(&self, entities: &Entities, mention: &Mention, scores: Scores) -> LinkArgs {
        let number = |score: Option<usize>| score.map_or(-1, |score| score as i32);
        let mut modalities = [ModalityArgs::zeroed(); 2];
        let places = entities.modalities.iter().zip(&mention.modalities);
        for ((args, weights), (theirs, own)) in modalities.iter_mut().zip(&self.modalities).zip(places) {
            let [rows, logits, queries, starts] = *theirs;
            let [own_rows, own_logits, own_query] = *own;
            let [out, out_bias] = weights.out.as_ref().map_or([Ptr::NULL; 2], |out| out.each_ref().map(|b| b.ptr()));
            let [[value, value_bias], [gamma, beta]] =
                [&weights.value, &weights.norm].map(|w| w.each_ref().map(|b| b.ptr()));
            let (score, padding) = (number(weights.score), 0);
            *args = ModalityArgs {
                rows,
                logits,
                queries,
                starts,
                value,
                value_bias,
                out,
                out_bias,
                gamma,
                beta,
                own_rows,
                own_logits,
                own_query,
                score,
                padding,
            };
        }
        let mut star = [MlpArgs::zeroed(); 2];
        for (args, mlp) in star.iter_mut().zip(self.star.iter().flat_map(|star| &star.mlps)) {
            let [hidden, hidden_bias, out, out_bias] = mlp.each_ref().map(|b| b.ptr());
            *args = MlpArgs { hidden, hidden_bias, out, out_bias };
        }
        let mut fused = [FusedArgs::zeroed(); 3];
        for (args, ((vectors, score), own)) in fused.iter_mut().zip(entities.fused.iter().zip(&mention.fused)) {
            *args = FusedArgs { vectors: *vectors, own: *own, score: number(*score), padding: 0 };
        }
        LinkArgs {
            resident: ResidentArgs::NONE,
            header: mention.header,
            candidates: mention.candidates,
            scores: scores.at,
            modalities,
            star,
            fused,
            capacity: scores.capacity as i32,
            d: self.d as i32,
            heads: self.heads as i32,
            modality_count: self.modalities.len() as i32,
            fused_count: entities.fused.len() as i32,
            star_score: number(self.star.as_ref().map(|Star { score, .. }| *score)),
            eps: self.eps,
            padding: 0,
        }
    }
}
