//! Scores of one mention against prepared entities (section 3.3 of the paper; Eq. 5 to 7 and 10), by one kernel.
//!
//! What belongs to one side alone was computed before: rows (L, d), logit vectors (heads, d) and queries (d) of each modality,
//! and the vectors (d) that Fusion's scores compare. Per candidate, the mention's query attends to the entity's rows and the other
//! way round; value and output layer, residual connection and normalization follow, then the MLPs of Eq. 7 and up to six dot
//! products. It is for inference alone and has no backward. On the host `model::Scorer` computes it, for many mentions at once.

mod cuda;

pub use cuda::{Launch, LinkArgs};

use crate::device::cuda::{DeviceBuffer, Ptr};

/// Words in front of a mention's candidates: their number, and the mention's rows of each modality.
pub const HEADER: usize = 4;

/// A model's weights on a device. Matrices are transposed, (inputs, outputs).
#[derive(Debug)]
pub struct Weights {
    /// Width of all vectors.
    pub d: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Of the normalization.
    pub eps: f32,
    /// Of each modality that Fission has: one or two, or none.
    pub modalities: Vec<ModalityWeights>,
    /// Of Eq. 7, if it is scored.
    pub star: Option<Star>,
}

/// What follows a modality's attention.
#[derive(Debug)]
pub struct ModalityWeights {
    /// Which score the modality's vectors give (Eq. 5, 6), if it is wanted.
    pub score: Option<usize>,
    /// Matrix (d, d) of the value layers of all heads side by side, and its bias (d); with the output layer in it where there is
    /// no `out`.
    pub value: [DeviceBuffer<f32>; 2],
    /// Matrix (d, d) of the output layer and its bias (d).
    pub out: Option<[DeviceBuffer<f32>; 2]>,
    /// Scale and shift (d) of the normalization.
    pub norm: [DeviceBuffer<f32>; 2],
}

/// The MLPs of Eq. 7, of the mention and of the entity: a hidden layer with its bias, and an output layer with its.
#[derive(Debug)]
pub struct Star {
    /// Which score it is.
    pub score: usize,
    /// Of each side.
    pub mlps: [[DeviceBuffer<f32>; 4]; 2],
}

/// Where entities lie on a device.
#[derive(Clone, Debug)]
pub struct Entities {
    /// Rows, logit vectors, queries and the first row of each entity, of each modality.
    pub modalities: Vec<[Ptr; 4]>,
    /// The vectors that Fusion's scores compare, and which score it is, if it is wanted.
    pub fused: Vec<(Ptr, Option<usize>)>,
    /// Whether rows and logit vectors are of f16, not of f32.
    pub half: bool,
}

/// Where a mention lies on a device.
#[derive(Clone, Debug)]
pub struct Mention {
    /// [`HEADER`] words.
    pub header: Ptr,
    /// The candidates' numbers.
    pub candidates: Ptr,
    /// Rows, logit vectors and query of each modality, in f32.
    pub modalities: Vec<[Ptr; 3]>,
    /// The vectors that Fusion's scores compare.
    pub fused: Vec<Ptr>,
}

/// Where scores (kinds, capacity) go: memory of the host's that the device writes to.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// The first.
    pub at: Ptr,
    /// Candidates that there is room for.
    pub capacity: usize,
}
