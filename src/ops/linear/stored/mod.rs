//! Products of activations with weight matrices of any precision, which stay where and as they are: row-major, in memory
//! or in a mapped file. A few rows of activations are dotted with each row of weights as it is read; for many, tiles of
//! weights are packed on the fly into the order that the registers take them in, which costs a percent of the product.

mod activations;
mod columns;
mod cuda;
mod cuda_blocks;
mod cuda_integers;
mod input;
mod layer;
#[cfg(target_arch = "x86_64")]
mod native;
mod on_device;
mod portable;

use std::ops::Range;

use rayon::prelude::*;

pub use cuda::{DeviceWeight, Numbers};
pub use cuda_blocks::DeviceBlocks;
pub use input::{Input, Next};
pub use layer::{StoredLinear, SwiGlu, Tokens, prompts_in_bytes};
pub use on_device::OnDevice;

use self::activations::{Activations, Form, Width};
use self::columns::Columns;
use crate::autograd::Cost;
use crate::error::{Error, Result};
use crate::tensor::{Element, Matrix, Precision, Values};

/// What a product with stored weights costs on so many rows; scales of integers are not counted.
pub fn cost(rows: usize, (inputs, outputs): (usize, usize), weights: Precision, element: Element) -> Cost {
    let bytes = weights.bytes(inputs * outputs) + rows * (inputs + outputs) * element.size();
    Cost::inference(2 * rows * inputs * outputs, bytes)
}

/// Fewer rows of activations than this are dotted with each row of weights as it is read.
const FEW: usize = 8;

/// Rows of weights of a packed tile.
const TILE: usize = 64;

/// Rows of weights that a task of few rows of activations reads.
const STRIP: usize = 128;

/// What a task may keep for the next one.
#[derive(Default)]
struct Scratch {
    floats: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    lines: Vec<super::packed::Line>,
}

/// `y = x Wᵀ` or, with `add`, `y += x Wᵀ`, in parallel over the weights' rows. x (n, columns), y (n, all rows): the
/// matrices are stacked by rows. Where the processor multiplies those, weights of bf16 take x in bf16, integers in 8-bit
/// integers with a scale per group, and blocks in 16-bit ones; elsewhere, and with other weights, x is f32.
///
/// Fails if a shape does not fit.
pub fn project(y: &mut [f32], x: &[f32], stacked: &[Matrix], add: bool) -> Result<()> {
    run(y, x, stacked, add, Width::Two, true)
}

fn run(y: &mut [f32], x: &[f32], stacked: &[Matrix], add: bool, prompts: Width, native: bool) -> Result<()> {
    let Some(first) = stacked.first() else { return Ok(()) };
    let outputs: usize = stacked.iter().map(|w| w.rows()).sum();
    let alike = |w: &Matrix| w.columns() == first.columns();
    let rows = x.len().checked_div(first.columns()).unwrap_or(0);
    if !stacked.iter().all(alike) || x.len() != rows * first.columns() || y.len() != rows * outputs {
        let reason = format!("{} values times ({outputs}, {})ᵀ into {}", x.len(), first.columns(), y.len());
        return Err(Error::shape("matrix product", reason));
    }
    // Weights of one form share their activations, as all of a directory do; a file of blocks may mix forms.
    let mut forms: Vec<(Form, Activations)> = Vec::new();
    let step = if rows < FEW { STRIP } else { TILE };
    let (mut ranges, mut tasks, mut start) = (Vec::new(), Vec::new(), 0);
    for weights in stacked {
        let form = Form::of(weights, rows, prompts, native);
        let place = forms.iter().position(|(known, _)| *known == form).unwrap_or(forms.len());
        if place == forms.len() {
            forms.push((form, Activations::new(x, weights.columns(), form)));
        }
        for first in (0..weights.rows()).step_by(step) {
            let rows = first..(first + step).min(weights.rows());
            ranges.push(start + rows.start..start + rows.end);
            tasks.push((weights, place, rows));
        }
        start += weights.rows();
    }
    let parts = Columns::split(y, outputs, &ranges);
    parts.into_par_iter().zip(tasks).try_for_each_init(Scratch::default, |scratch, (mut y, (weights, place, rows))| {
        product(&mut y, &forms[place].1, weights, rows, add, scratch)
    })
}

/// One task: some rows of weights.
fn product(
    y: &mut Columns,
    x: &Activations,
    weights: &Matrix,
    rows: Range<usize>,
    add: bool,
    scratch: &mut Scratch,
) -> Result<()> {
    match (x, weights.values()) {
        #[cfg(target_arch = "x86_64")]
        (Activations::Bf16(x), Values::Bf16(values)) => {
            let values = &values[rows.start * weights.columns()..rows.end * weights.columns()];
            native::bf16(y, x, values, add, &mut scratch.lines);
            Ok(())
        }
        #[cfg(target_arch = "x86_64")]
        (Activations::Integers(x), Values::Quantized { bits, codes, scales }) => {
            let (bytes, groups) = (bits.bytes(weights.columns()), scales.len() / weights.rows());
            let codes = &codes[rows.start * bytes..rows.end * bytes];
            let scales = &scales[rows.start * groups..rows.end * groups];
            native::integers(y, x, *bits, codes, scales, add, scratch);
            Ok(())
        }
        #[cfg(target_arch = "x86_64")]
        (Activations::Integers(x), Values::Blocks { kind, blocks }) => {
            let bytes = kind.bytes(weights.columns());
            native::blocks(y, x, *kind, &blocks[rows.start * bytes..rows.end * bytes], add, scratch);
            Ok(())
        }
        #[cfg(target_arch = "x86_64")]
        (Activations::Floats(x), values) => {
            let columns = weights.columns();
            let part = rows.start * columns..rows.end * columns;
            match values {
                Values::F32(values) => native::floats(y, x, columns, &values[part], add),
                Values::F16(values) => native::floats(y, x, columns, &values[part], add),
                Values::Bf16(values) => native::floats(y, x, columns, &values[part], add),
                _ => return Err(Error::shape("matrix product", "activations for other weights")),
            }
            Ok(())
        }
        (Activations::F32(x), _) => portable::product(y, x, weights, rows.start, add, &mut scratch.floats),
        _ => Err(Error::shape("matrix product", "activations for other weights")),
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::tensor::BlockType;
    use crate::tensor::quantized::{Bits, quantize};

    fn wave(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    /// Each kind of weights made of the same numbers.
    fn with_each(weights: &[f32], rows: usize, check: impl Fn(&str, Matrix)) {
        let columns = weights.len() / rows;
        let matrix = |values| Matrix::new(rows, columns, values).unwrap();
        check("f32", matrix(Values::F32(weights.to_vec().into())));
        let narrow: Vec<f16> = weights.iter().map(|&x| f16::from_f32(x)).collect();
        check("f16", matrix(Values::F16(narrow.into())));
        let narrow: Vec<bf16> = weights.iter().map(|&x| bf16::from_f32(x)).collect();
        check("bf16", matrix(Values::Bf16(narrow.into())));
        for (bits, group) in [(Bits::Eight, 64), (Bits::Eight, 128), (Bits::Four, 64), (Bits::Four, 128)] {
            if columns.is_multiple_of(group) {
                let (mut codes, mut scales) =
                    (vec![0; rows * bits.bytes(columns)], vec![bf16::ZERO; rows * columns / group]);
                let by_row = codes.chunks_exact_mut(bits.bytes(columns)).zip(scales.chunks_exact_mut(columns / group));
                weights.chunks_exact(columns).zip(by_row).for_each(|(w, (c, s))| quantize(bits, w, c, s));
                let values = Values::Quantized { bits, codes: codes.into(), scales: scales.into() };
                check(&format!("{} bits, groups of {group}", bits.count()), matrix(values));
            }
        }
        // Any codes; scales between 0.5 and 1 of what makes the largest weights about 1.
        for kind in BlockType::ALL.into_iter().filter(|kind| columns.is_multiple_of(kind.weights())) {
            let mut blocks: Vec<u8> = (0..rows * kind.bytes(columns)).map(|i| (i * i * 37 + i * 11) as u8).collect();
            for (i, block) in blocks.chunks_exact_mut(kind.block_bytes()).enumerate() {
                let size = if kind.weights() == 32 { 1.0 / f32::from(kind.zero().max(16)) } else { 1.0 / 2000.0 };
                for at in kind.scales() {
                    let scale = f16::from_f32(size * (1.0 + (i % 7) as f32 / 7.0) / 2.0);
                    block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                }
            }
            assert_eq!(kind.first_unbounded(&blocks), None);
            check(&format!("blocks of {kind}"), matrix(Values::Blocks { kind, blocks: blocks.into() }));
        }
    }

    /// The product of the weights as they are stored and x as it is, in f64.
    fn expected(x: &[f32], weights: &Matrix) -> Vec<f64> {
        let mut row = vec![0.0; weights.columns()];
        let mut out = vec![0.0; x.len() / weights.columns() * weights.rows()];
        for j in 0..weights.rows() {
            weights.row(j, &mut row);
            for (i, x) in x.chunks_exact(weights.columns()).enumerate() {
                out[i * weights.rows() + j] = x.iter().zip(&row).map(|(&x, &w)| x as f64 * w as f64).sum();
            }
        }
        out
    }

    /// Root of the mean square of the weights.
    fn deviation(weights: &Matrix) -> f64 {
        let mut row = vec![0.0; weights.columns()];
        let squares = |i: usize, row: &mut [f32]| {
            weights.row(i, row);
            row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>()
        };
        let sum: f64 = (0..weights.rows()).map(|i| squares(i, &mut row)).sum();
        (sum / (weights.rows() * weights.columns()) as f64).sqrt()
    }

    #[test]
    fn products_agree_with_the_definition_at_all_sizes_with_and_without_the_instructions() {
        let sizes = [
            (1, 5, 64),
            (2, 130, 192),
            (3, 64, 128),
            (4, 1, 1088),
            (5, 3, 33),
            (7, 66, 320),
            (8, 64, 64),
            (3, 70, 512),
            (9, 70, 1280),
        ];
        for (n, rows, columns) in sizes.into_iter().chain([(13, 100, 1088), (9, 1, 33), (70, 129, 1600), (6, 20, 1)]) {
            let mut x = wave(n * columns, 0.37);
            x.iter_mut().for_each(|x| *x += 0.3);
            let w = wave(rows * columns, 0.11);
            with_each(&w, rows, |name, weights| {
                let want = expected(&x, &weights);
                let deviation = deviation(&weights).max(0.7);
                for (native, prompts) in [(false, Width::Two), (true, Width::Two), (true, Width::One)] {
                    let mut y = vec![0.5; n * rows];
                    run(&mut y, &x, std::slice::from_ref(&weights), true, prompts, native).unwrap();
                    // Integers round x evenly to steps of at most 1.3 over their largest code, whose deviation is 0.29 of
                    // a step; times weights of their own deviation, six deviations of the sum are the bound. bf16
                    // rounds less.
                    let size = (columns as f64).sqrt();
                    let exact = name == "f32" || name == "f16";
                    let fine = name.starts_with("blocks") && (prompts == Width::Two || n < FEW);
                    let largest = if fine { 32_639.0 } else { 127.0 };
                    let rounded = if native && !exact { 6.0 * 0.29 * 1.3 / largest * deviation * size } else { 0.0 };
                    let bound = rounded.max(2e-6 * deviation.max(1.0) * size);
                    // Blocks have weights that are mostly above zero: their sums grow, and round at each step.
                    let bound = |want: f64| bound + 1e-6 * want.abs();
                    for (i, (y, want)) in y.iter().zip(&want).enumerate() {
                        let off = (*y as f64 - 0.5 - want).abs();
                        assert!(
                            off <= bound(*want),
                            "{name}, {n} x {rows} x {columns}, native {native}, {prompts:?}, {i}: off by {off}"
                        );
                    }
                }
            });
        }
    }

    #[test]
    fn stacked_weights_write_side_by_side() {
        let (x, w) = (wave(2 * 64, 0.3), wave(70 * 64, 0.7));
        let part = |from: usize, to: usize| {
            Matrix::new(to - from, 64, Values::F32(w[from * 64..to * 64].to_vec().into())).unwrap()
        };
        let (mut whole, mut parts) = (vec![0.0; 140], vec![f32::NAN; 140]);
        project(&mut whole, &x, &[part(0, 70)], false).unwrap();
        project(&mut parts, &x, &[part(0, 3), part(3, 3), part(3, 70)], false).unwrap();
        assert_eq!(whole, parts);
        assert!(project(&mut parts, &x[1..], &[part(0, 70)], false).is_err());
        assert!(project(&mut parts, &x, &[part(0, 69)], false).is_err());
    }
}
