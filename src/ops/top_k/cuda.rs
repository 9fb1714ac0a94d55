//! The best of rows of products on CUDA devices (kernels/top_k.cu).

use bytemuck::{Pod, Zeroable};

use super::{Found, PART};
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Threads of a block, and bytes of shared memory: a key of each value.
const THREADS: u32 = 512;
const SHARED: u32 = 4 * PART as u32;

/// A value's key, whose order is the values', and its number.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Candidate {
    key: u32,
    number: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TopK {
    values: Ptr,
    candidates: Ptr,
    out: Ptr,
    length: i32,
    k: i32,
}

impl Candidate {
    /// What it is of, unless it is none.
    fn found(self) -> Option<Found> {
        let bits = if self.key >> 31 == 1 { self.key ^ (1 << 31) } else { !self.key };
        (self.number != u32::MAX).then(|| Found { number: self.number, product: f32::from_bits(bits) })
    }
}

/// The `k` largest values of each row of f32, as [`super::Top`] finds them: the best first. Fails if `k` is more than
/// [`super::MOST`].
pub fn top_k(values: &Tensor, k: usize) -> Result<Vec<Vec<Found>>> {
    let (gpu, rows, width) = (values.device("top_k")?, values.count(), values.width());
    if values.element() != Element::F32 || k > super::MOST {
        let (element, most) = (values.element(), super::MOST);
        return Err(Error::shape("top_k", format!("the best {k} of {element:?}; at most {most} of F32")));
    }
    if rows == 0 || width == 0 || k == 0 {
        return Ok(vec![vec![]; rows]);
    }
    let (mut candidates, mut length): (Option<DeviceBuffer<Candidate>>, _) = (None, width);
    while candidates.is_none() || length > k {
        let parts = length.div_ceil(PART);
        let out = gpu.alloc::<Candidate>("the best of parts", rows * parts * k)?;
        let (kernel, of_rows, from) = match &candidates {
            None => ("top_k_of_values", values.ptr(), Ptr::NULL),
            Some(candidates) => ("top_k_of_candidates", Ptr::NULL, candidates.ptr()),
        };
        let args = TopK { values: of_rows, candidates: from, out: out.ptr(), length: length as i32, k: k as i32 };
        gpu.launch(kernel, Grid { blocks: [parts, rows, 1], threads: THREADS, shared: SHARED }, &args)?;
        (candidates, length) = (Some(out), parts * k);
    }
    let mut best = vec![Candidate::zeroed(); rows * length];
    candidates.map_or(Ok(()), |candidates| candidates.read(&mut best))?;
    let sorted = |best: &[Candidate]| Found::best(best.iter().filter_map(|best| best.found()).collect(), k);
    Ok(best.chunks_exact(length).map(sorted).collect())
}
