//! Activations in the form that a product with weights of some precision takes.

use half::bf16;
use rayon::prelude::*;

use super::FEW;
use crate::device::cpu::{has_bf16, has_integers, simd, vector};
use crate::ops::linear::ROW_CHUNK;
use crate::tensor::quantized::BLOCK;
use crate::tensor::{Bits, Values, Weight};

/// Rows of activations.
pub enum Activations<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// Rounded.
    Bf16(Rounded),
    /// Quantized.
    Integers(Integers),
}

/// Rows of bf16, each padded with zeros.
pub struct Rounded {
    pub values: Vec<bf16>,
    /// Values from one row to the next, a multiple of 32 that exceeds the row's.
    pub stride: usize,
    pub columns: usize,
}

/// Rows of signed bytes, `x = scale · code` with a scale per group of columns; padded with zeros to whole 128 columns.
pub struct Integers {
    pub codes: Vec<i8>,
    /// Columns with the padding: bytes from one row to the next.
    pub stride: usize,
    pub columns: usize,
    /// Columns of a group.
    pub group: usize,
    /// (rows, groups with the padding)
    pub scales: Vec<f32>,
    /// What the weights' zero adds to each group's sum of products: minus zero times the sum of the codes.
    pub corrections: Vec<i32>,
    /// Whether each 128 codes lie as 4-bit weights do when they are unpacked: columns 0..32, 64..96, 32..64, 96..128.
    pub interleaved: bool,
}

impl<'a> Activations<'a> {
    /// The form that these weights take; with `native` one that the processor multiplies, if there is one.
    pub fn for_weights(x: &'a [f32], weights: &Weight, native: bool) -> Activations<'a> {
        let columns = weights.columns();
        match weights.values() {
            Values::Bf16(_) if native && has_bf16() => Activations::Bf16(Rounded::new(x, columns)),
            Values::Quantized { bits, scales, .. } if native && has_integers() => {
                let group = columns * weights.rows() / scales.len().max(1);
                Activations::Integers(Integers::new(x, columns, group, *bits))
            }
            _ => Activations::F32(x),
        }
    }
}

impl Rounded {
    fn new(x: &[f32], columns: usize) -> Rounded {
        // One line more than needed: rows a large power of two apart would fall into the same few sets of the cache.
        let stride = columns.next_multiple_of(32) + 32;
        let mut values = vec![bf16::ZERO; x.len() / columns * stride];
        let chunks = values.par_chunks_mut(ROW_CHUNK / 8 * stride).zip(x.par_chunks(ROW_CHUNK / 8 * columns));
        chunks.for_each(|(values, x)| {
            for (values, x) in values.chunks_exact_mut(stride).zip(x.chunks_exact(columns)) {
                simd!(vector::round_bf16(&mut values[..columns], x));
            }
        });
        Rounded { values, stride, columns }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.stride
    }
}

impl Integers {
    fn new(x: &[f32], columns: usize, group: usize, bits: Bits) -> Integers {
        let rows = x.len() / columns;
        let stride = columns.next_multiple_of(2 * BLOCK);
        let groups = stride / group;
        let interleaved = bits == Bits::Four && rows < FEW;
        let mut codes = vec![0; rows * stride];
        let (mut scales, mut corrections) = (vec![0.0; rows * groups], vec![0; rows * groups]);
        let chunk = ROW_CHUNK / 8;
        codes
            .par_chunks_mut(chunk * stride)
            .zip(scales.par_chunks_mut(chunk * groups))
            .zip(corrections.par_chunks_mut(chunk * groups))
            .zip(x.par_chunks(chunk * columns))
            .for_each(|(((codes, scales), corrections), x)| {
                let rows = codes.chunks_exact_mut(stride).zip(x.chunks_exact(columns));
                let by_group = scales.chunks_exact_mut(groups).zip(corrections.chunks_exact_mut(groups));
                for ((codes, x), (scales, corrections)) in rows.zip(by_group) {
                    let x = x.chunks_exact(group).zip(codes.chunks_exact_mut(group));
                    for ((x, codes), (scale, correction)) in x.zip(scales.iter_mut().zip(corrections)) {
                        let (step, sum) = simd!(vector::quantize(codes, x));
                        (*scale, *correction) = (step, -(bits.zero() as i32) * sum);
                    }
                    if interleaved {
                        interleave(codes);
                    }
                }
            });
        Integers { codes, stride, columns, group, scales, corrections, interleaved }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.codes.len() / self.stride
    }

    /// Groups of a row, the padding's included.
    pub fn groups(&self) -> usize {
        self.stride / self.group
    }
}

/// Swaps the middle quarters of each 128 codes.
fn interleave(codes: &mut [i8]) {
    for block in codes.chunks_exact_mut(2 * BLOCK) {
        let (first, second) = block.split_at_mut(BLOCK);
        first[BLOCK / 2..].swap_with_slice(&mut second[..BLOCK / 2]);
    }
}
