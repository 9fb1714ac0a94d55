//! Choosing tokens by their logits (kernels/sample.cu).

use bytemuck::{Pod, Zeroable};

use super::Draw;
use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Logits that a block looks for their largest.
const PART: usize = 4096;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Peaks {
    logits: Ptr,
    peaks: Ptr,
    vocabulary: i32,
    parts: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Choose {
    logits: Ptr,
    peaks: Ptr,
    draws: Ptr,
    out: Ptr,
    vocabulary: i32,
    parts: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Gather {
    logits: Ptr,
    tokens: Ptr,
    out: Ptr,
    vocabulary: i32,
    count: i32,
}

/// A token from each row of logits, one draw per row.
pub fn chosen(logits: &Tensor, draws: &[Draw]) -> Result<Vec<u32>> {
    let (mut tokens, gpu) = (vec![0; draws.len()], logits.device("choose")?);
    let there = gpu.alloc::<u32>("tokens", draws.len())?;
    choose(logits, gpu.upload("tokens", draws)?.ptr(), there.ptr(), draws.len())?;
    there.read(&mut tokens).map(|()| tokens)
}

/// Queues the choice of a token from each row of logits ([`super::choose`]), of as many draws and places of tokens.
pub fn choose(logits: &Tensor, draws: Ptr, out: Ptr, tokens: usize) -> Result<()> {
    let (gpu, rows, vocabulary) = (logits.device("choose")?, logits.count(), logits.width());
    if logits.element() != Element::F32 || tokens != rows {
        return Err(Error::shape("choose", format!("{rows} rows of {:?}, {tokens} tokens", logits.element())));
    }
    let parts = vocabulary.div_ceil(PART);
    // A value and a number each.
    let peaks = gpu.alloc::<[u32; 2]>("logits", rows * parts)?;
    let (logits, vocabulary, count) = (logits.ptr(), vocabulary as i32, parts as i32);
    let args = Peaks { logits, peaks: peaks.ptr(), vocabulary, parts: count };
    gpu.launch("sample_peaks", Grid { blocks: [parts, rows, 1], threads: 256, shared: 0 }, &args)?;
    let args = Choose { logits, peaks: peaks.ptr(), draws, out, vocabulary, parts: count };
    gpu.launch("sample_choose", Grid::line(rows, 1024), &args)
}

/// Of each row of f32 the values with these numbers: (rows, numbers).
pub fn gather(logits: &Tensor, numbers: &[u32]) -> Result<Tensor> {
    let (gpu, rows, width, count) = (logits.device("gather")?, logits.count(), logits.width(), numbers.len());
    if logits.element() != Element::F32 || numbers.iter().any(|&number| number as usize >= width) {
        return Err(Error::shape("gather", format!("{:?} rows of {width}, or a number beyond", logits.element())));
    }
    let numbers = gpu.upload("row numbers", numbers)?;
    let out = Tensor::alloc(gpu, "logits", Element::F32, [rows, count])?;
    let (vocabulary, count) = (width as i32, count as i32);
    let args = Gather { logits: logits.ptr(), tokens: numbers.ptr(), out: out.ptr(), vocabulary, count };
    let blocks = [numbers.len().div_ceil(128), rows, 1];
    gpu.launch("sample_gather", Grid { blocks, threads: 128, shared: 0 }, &args)?;
    Ok(out)
}
