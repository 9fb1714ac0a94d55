//! Activations in the form that a product with weights of some precision takes.

use half::bf16;
use rayon::prelude::*;

use super::FEW;
use crate::device::cpu::{has_bf16, has_floats, has_integers, simd, vector};
use crate::ops::linear::ROW_CHUNK;
use crate::tensor::quantized::BLOCK;
use crate::tensor::{Bits, Matrix, Values};

/// Rows of activations.
pub enum Activations<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// As they are, few rows for weights of floats that the processor widens as fast as it reads them.
    Floats(&'a [f32]),
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

/// Rows of signed integers, `x = scale · code` with a scale per group of columns; padded with zeros to whole 128 columns.
pub struct Integers {
    /// Bytes of each code: one, or 256 times the one and the other. Of two, a row has the upper ones, then the lower ones.
    pub codes: Vec<i8>,
    pub width: Width,
    /// Columns with the padding: from a code's upper byte to its lower one.
    pub padded: usize,
    pub columns: usize,
    /// Columns of a group.
    pub group: usize,
    /// (rows, groups with the padding)
    pub scales: Vec<f32>,
    /// What the weights' zero adds to each group's sum of products: minus zero times the sum of the codes. Nothing for
    /// blocks, whose zero is part of what is least in a group.
    pub corrections: Vec<i32>,
    /// Sum of each group: scale times the sum of its codes (rows, groups with the padding).
    pub sums: Vec<f32>,
    /// Whether each 128 codes lie as 4-bit weights do when they are unpacked: columns 0..32, 64..96, 32..64, 96..128.
    pub interleaved: bool,
}

/// What weights want their activations to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    F32,
    Floats,
    Bf16,
    /// With a scale for each `group` of columns, for weights whose code of 0 is `zero`; `packed` if they lie two to a byte.
    Integers {
        group: usize,
        zero: u8,
        packed: bool,
        width: Width,
    },
}

/// Bytes of an activation's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// It is off by at most a 254th of the largest in its group.
    One = 1,
    /// By at most a 65,278th, in twice the time.
    Two = 2,
}

impl Form {
    /// What these weights take of so many rows; with `native` one that the processor multiplies, if there is one. Many rows are
    /// multiplied by blocks in codes of this width.
    pub fn of(weights: &Matrix, rows: usize, prompts: Width, native: bool) -> Form {
        match weights.values() {
            Values::Bf16(_) if native && has_bf16() => Form::Bf16,
            Values::F32(_) | Values::F16(_) | Values::Bf16(_) if native && rows < FEW && has_floats() => Form::Floats,
            Values::Quantized { bits, scales, .. } if native && has_integers() => {
                let group = weights.columns() * weights.rows() / scales.len().max(1);
                Form::Integers { group, zero: bits.zero(), packed: *bits == Bits::Four, width: Width::One }
            }
            Values::Blocks { kind, .. } if native && has_integers() && weights.columns().is_multiple_of(BLOCK) => {
                let width = if rows < FEW { Width::Two } else { prompts };
                Form::Integers { group: kind.group_size(), zero: 0, packed: false, width }
            }
            _ => Form::F32,
        }
    }
}

impl<'a> Activations<'a> {
    /// Rows of x in a form.
    pub fn new(x: &'a [f32], columns: usize, form: Form) -> Activations<'a> {
        match form {
            Form::F32 => Activations::F32(x),
            Form::Floats => Activations::Floats(x),
            Form::Bf16 => Activations::Bf16(Rounded::new(x, columns)),
            Form::Integers { group, zero, packed, width } => {
                Activations::Integers(Integers::new(x, columns, (group, zero), packed, width))
            }
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
    fn new(x: &[f32], columns: usize, (group, zero): (usize, u8), packed: bool, width: Width) -> Integers {
        let rows = x.len() / columns;
        let padded = columns.next_multiple_of(2 * BLOCK);
        let (stride, groups) = (padded * width as usize, padded / group);
        let interleaved = packed && rows < FEW;
        let mut codes = vec![0; rows * stride];
        let (mut scales, mut sums) = (vec![0.0; rows * groups], vec![0.0; rows * groups]);
        let mut corrections = vec![0; rows * groups];
        let chunk = ROW_CHUNK / 8;
        codes
            .par_chunks_mut(chunk * stride)
            .zip(scales.par_chunks_mut(chunk * groups))
            .zip(corrections.par_chunks_mut(chunk * groups))
            .zip(sums.par_chunks_mut(chunk * groups))
            .zip(x.par_chunks(chunk * columns))
            .for_each(|((((codes, scales), corrections), sums), x)| {
                let rows = codes.chunks_exact_mut(stride).zip(x.chunks_exact(columns));
                let by_group = scales.chunks_exact_mut(groups).zip(corrections.chunks_exact_mut(groups));
                let by_group = by_group.zip(sums.chunks_exact_mut(groups));
                for ((codes, x), ((scales, corrections), sums)) in rows.zip(by_group) {
                    let (codes, low) = codes.split_at_mut(padded);
                    let of_group = scales.iter_mut().zip(corrections).zip(sums);
                    for (i, (x, ((scale, correction), total))) in x.chunks_exact(group).zip(of_group).enumerate() {
                        let codes = &mut codes[i * group..][..group];
                        let (step, sum) = match width {
                            Width::One => simd!(vector::quantize(codes, x)),
                            Width::Two => simd!(vector::quantize_finely(codes, &mut low[i * group..][..group], x)),
                        };
                        (*scale, *correction, *total) = (step, -i32::from(zero) * sum, step * sum as f32);
                    }
                    if interleaved {
                        interleave(codes);
                    }
                }
            });
        Integers { codes, width, padded, columns, group, scales, corrections, sums, interleaved }
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.padded * self.width as usize
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.codes.len() / self.stride()
    }

    /// Groups of a row, the padding's included.
    pub fn groups(&self) -> usize {
        self.padded / self.group
    }
}

/// Swaps the middle quarters of each 128 codes.
fn interleave(codes: &mut [i8]) {
    for block in codes.chunks_exact_mut(2 * BLOCK) {
        let (first, second) = block.split_at_mut(BLOCK);
        first[BLOCK / 2..].swap_with_slice(&mut second[..BLOCK / 2]);
    }
}
