//! Self-attention of ragged sequences (kernels/attention.cu).

use bytemuck::{Pod, Zeroable};

use super::Heads;
use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Sequences, Tensor};

/// The widest heads that the kernels take.
const WIDEST: usize = 128;

/// Queries of a warp, most warps of a block, and keys of a tile.
const WARP_QUERIES: usize = 16;
const MOST_WARPS: usize = 4;
const KEYS: usize = 64;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    q: Ptr,
    k: Ptr,
    v: Ptr,
    out: Ptr,
    offsets: Ptr,
    row: i64,
    out_row: i64,
    head: i32,
    causal: i32,
    scale: f32,
    padding: i32,
}

/// Attention of each sequence to itself: queries, keys and values side by side (rows, 3 · width) -> (rows, width), of
/// the same element type.
pub fn attend(qkv: &Tensor, sequences: &Sequences, heads: Heads) -> Result<Tensor> {
    let (gpu, element) = (qkv.device("attention")?, qkv.element());
    let Heads { count, width: head, causal } = heads;
    let width = count * head;
    let tensor_cores = element == Element::Bf16;
    if element == Element::F16 {
        return Err(Error::shape("attention", "rows of f16"));
    }
    if qkv.width() != 3 * width {
        return Err(Error::shape("attention", format!("rows of {} for {count} heads of {head}", qkv.width())));
    }
    if head == 0 || head > WIDEST || (tensor_cores && !head.is_multiple_of(8)) {
        let reason = format!("heads of {head}: must be a multiple of 8, at most {WIDEST}");
        return Err(Error::shape("attention", reason));
    }
    let out = Tensor::alloc(gpu, "activations", element, [qkv.count(), width])?;
    let args = Args {
        q: qkv.address(),
        k: qkv.column(width),
        v: qkv.column(2 * width),
        out: out.address(),
        offsets: sequences.on(gpu, qkv.count())?,
        row: 3 * width as i64,
        out_row: width as i64,
        head: head as i32,
        causal: causal as i32,
        scale: 1.0 / (head as f32).sqrt(),
        padding: 0,
    };
    // Short sequences take fewer warps, none of which idles.
    let warps = if tensor_cores { sequences.longest().div_ceil(WARP_QUERIES).clamp(1, MOST_WARPS) } else { 4 };
    let queries = if tensor_cores { warps * WARP_QUERIES } else { warps };
    let shared = if tensor_cores { (queries + 2 * KEYS) * (head.next_multiple_of(16) + 8) * 2 } else { 0 };
    let wide = if head <= 64 { "attention_64" } else { "attention_128" };
    let grid = Grid {
        blocks: [sequences.lengths().len(), count, sequences.longest().div_ceil(queries)],
        threads: 32 * warps as u32,
        shared: shared as u32,
    };
    gpu.launch(if tensor_cores { wide } else { "attention_f32" }, grid, &args)?;
    Ok(out)
}
