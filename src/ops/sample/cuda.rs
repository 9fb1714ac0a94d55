//! Choosing tokens by their logits (kernels/sample.cu).

use bytemuck::{Pod, Zeroable};

use super::Draw;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Matrix};

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

impl Matrix {
    /// Chooses a token from each row of logits, one draw per row. The logits are used up.
    pub(crate) fn chosen(self, draws: &[Draw]) -> Result<Vec<u32>> {
        let (mut tokens, gpu) = (vec![0; draws.len()], self.gpu().clone());
        let there = gpu.alloc("tokens", draws.len())?;
        self.choose(&gpu.upload("tokens", draws)?, &there)?;
        there.read(&mut tokens).map(|()| tokens)
    }

    /// Queues the choice of a token from each row of logits ([`super::choose`]), one draw and one token per
    /// row. The logits are used up.
    pub fn choose(self, draws: &DeviceBuffer<Draw>, tokens: &DeviceBuffer<u32>) -> Result<()> {
        let (gpu, rows, vocabulary) = (self.gpu(), self.rows(), self.width());
        if self.element() != Element::F32 || draws.len() != rows || tokens.len() != rows {
            let (element, draws, tokens) = (self.element(), draws.len(), tokens.len());
            let reason = format!("{rows} rows of {element:?}, {draws} draws, {tokens} tokens");
            return Err(Error::shape("choose", reason));
        }
        let parts = vocabulary.div_ceil(PART);
        // A value and a number each.
        let peaks = gpu.alloc::<[u32; 2]>("logits", rows * parts)?;
        let (logits, vocabulary, count) = (self.ptr(), vocabulary as i32, parts as i32);
        let args = Peaks { logits, peaks: peaks.ptr(), vocabulary, parts: count };
        gpu.launch("sample_peaks", Grid { blocks: [parts, rows, 1], threads: 256, shared: 0 }, &args)?;
        let (at, draws, out) = (peaks.ptr(), draws.ptr(), tokens.ptr());
        let args = Choose { logits, peaks: at, draws, out, vocabulary, parts: count };
        gpu.launch("sample_choose", Grid::line(rows, 1024), &args)
    }

    /// Of each row of f32 the values with these numbers: (rows, numbers).
    pub fn gather(&self, numbers: &[u32]) -> Result<Matrix> {
        let (gpu, rows, width, count) = (self.gpu(), self.rows(), self.width(), numbers.len());
        if self.element() != Element::F32 || numbers.iter().any(|&number| number as usize >= width) {
            return Err(Error::shape("gather", format!("{:?} rows of {width}, or a number beyond", self.element())));
        }
        let numbers = gpu.upload("row numbers", numbers)?;
        let out = Matrix::alloc(gpu, "logits", Element::F32, rows, count)?;
        let (vocabulary, count) = (width as i32, count as i32);
        let args = Gather { logits: self.ptr(), tokens: numbers.ptr(), out: out.ptr(), vocabulary, count };
        let blocks = [numbers.len().div_ceil(128), rows, 1];
        gpu.launch("sample_gather", Grid { blocks, threads: 128, shared: 0 }, &args)?;
        Ok(out)
    }
}
