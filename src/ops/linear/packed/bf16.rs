//! Products with weights in bf16, packed once: `out = x Wᵀ` with sums in f32.
//!
//! W (outputs, inputs) is cut into panels of 64 outputs; a panel holds, for each two inputs, the two weights of each
//! output side by side, as the dot-product instruction takes them. x is rounded to bf16 a block of rows at a time, into
//! memory that stays in the second-level cache, unless it lies there in bf16 already. Each sum runs over the inputs in
//! order, whatever the number of threads.

use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use half::bf16;
use rayon::prelude::*;

use super::{Epilogue, Operand, Value};
use crate::device::cpu::{has_bf16, simd, vector};
use crate::error::{Error, Result};
use crate::ops::matmul::{Mat, matmul_by_rows};

#[cfg(target_arch = "x86_64")]
use super::avx512;

/// Outputs of a panel.
pub const PANEL: usize = 64;

/// Most inputs whose weights of a panel (128 KiB) a tile goes through before the next tile does.
const DEPTH: usize = 1024;

/// Rows of x of a tile.
const TILE: usize = 6;

/// Bytes of the block of x that one task goes through for each panel: half of a second-level cache.
const BLOCK: usize = 512 << 10;

/// Most rows of a block.
const ROWS: usize = 240;

/// Tasks per thread: enough that the threads finish together.
const TASKS: usize = 8;

/// 64 aligned bytes: two inputs' weights of 16 outputs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line([bf16; 32]);

/// A weight (outputs, inputs), packed for products.
#[derive(Debug)]
pub struct PackedBf16 {
    lines: Vec<Line>,
    outputs: usize,
    inputs: usize,
}

thread_local! {
    /// A thread's block of x in bf16, and its sums.
    static SCRATCH: RefCell<(Vec<bf16>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl PackedBf16 {
    /// Packs a row-major weight (outputs, inputs) of bf16 or of f32, which is rounded.
    pub fn new<T: Value>(weight: &[T], outputs: usize, inputs: usize) -> Result<PackedBf16> {
        if weight.len() != outputs * inputs || inputs == 0 {
            return Err(Error::shape("packed weight", format!("{} values for ({outputs}, {inputs})", weight.len())));
        }
        let mut packed = PackedBf16 { lines: Vec::new(), outputs, inputs };
        let per_panel = packed.lines_per_panel();
        packed.lines = vec![Line::zeroed(); per_panel * outputs.div_ceil(PANEL)];
        let panels = packed.lines.par_chunks_mut(per_panel).zip(weight.par_chunks(PANEL * inputs));
        panels.for_each_init(Vec::new, |rounded, (panel, rows)| {
            rounded.resize(inputs, bf16::ZERO);
            let panel: &mut [[bf16; 2]] = bytemuck::cast_slice_mut(panel);
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                simd!(T::round(rounded, row));
                for (pair, weights) in rounded.chunks(2).enumerate() {
                    panel[pair * PANEL + output][..weights.len()].copy_from_slice(weights);
                }
            }
        });
        Ok(packed)
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `out = epilogue(x Wᵀ)`. x (n, inputs), out (n, outputs).
    pub fn forward<T: Value, U: Value>(&self, x: Operand<T>, out: &mut [U], epilogue: Epilogue) -> Result<()> {
        self.run(x, out, epilogue, has_bf16())
    }

    fn lines_per_panel(&self) -> usize {
        self.inputs.div_ceil(2) * (PANEL / 16)
    }

    /// Checks the shapes, cuts the work into tasks and runs them.
    fn run<T: Value, U: Value>(&self, x: Operand<T>, out: &mut [U], epilogue: Epilogue, native: bool) -> Result<()> {
        let rows = check(&x, (self.outputs, self.inputs), out.len(), &epilogue)?;
        if out.is_empty() {
            return Ok(());
        }
        let most = (BLOCK / (2 * self.inputs)).clamp(TILE, ROWS);
        let blocks = rows.div_ceil(most);
        let per_block = rows.div_ceil(blocks).next_multiple_of(TILE);
        let panels = self.outputs.div_ceil(PANEL);
        let groups = (TASKS * rayon::current_num_threads()).div_ceil(blocks).clamp(1, panels);
        let per_group = panels.div_ceil(groups);
        let out = Shared { start: out.as_mut_ptr(), len: out.len() };
        let (blocks, groups) = (rows.div_ceil(per_block), panels.div_ceil(per_group));
        (0..blocks * groups).into_par_iter().try_for_each(|task| {
            let (block, group) = (task / groups * per_block, task % groups * per_group);
            let rows = block..(block + per_block).min(rows);
            let panels = group..(group + per_group).min(panels);
            SCRATCH.with_borrow_mut(|scratch| self.task(&x, rows, panels, &out, &epilogue, scratch, native))
        })
    }

    /// Some rows of x times some panels.
    #[expect(clippy::too_many_arguments, reason = "the loop body of `run`, where all of these are local")]
    fn task<T: Value, U: Value>(
        &self,
        x: &Operand<T>,
        rows: Range<usize>,
        panels: Range<usize>,
        out: &Shared<U>,
        epilogue: &Epilogue,
        scratch: &mut (Vec<bf16>, Vec<f32>),
        native: bool,
    ) -> Result<()> {
        let (block, sums) = scratch;
        let (x, stride) = x.block(rows.clone(), block);
        sums.resize(rows.len() * PANEL, 0.0);
        for panel in panels {
            let lines = &self.lines[panel * self.lines_per_panel()..][..self.lines_per_panel()];
            let column = panel * PANEL;
            let width = PANEL.min(self.outputs - column);
            if native {
                tiles(x, stride, lines, sums, self.inputs);
            } else {
                widened(x, stride, lines, sums, self.inputs)?;
            }
            simd!({
                for (i, sums) in sums.chunks_exact_mut(PANEL).enumerate() {
                    let start = (rows.start + i) * self.outputs + column;
                    // SAFETY: tasks differ in rows or in panels, so no other touches these values; `Shared` checks
                    // that they lie inside of `out`.
                    let out = unsafe { out.slice(start, width) };
                    epilogue.finish(&mut sums[..width], &mut [0.0; PANEL][..width], column, out);
                }
            });
        }
        Ok(())
    }
}

/// Checks that x, a weight of this size, the output and the bias fit together; gives the rows of x.
pub fn check<T: Value>(
    x: &Operand<T>,
    (outputs, inputs): (usize, usize),
    out: usize,
    epilogue: &Epilogue,
) -> Result<usize> {
    let (rows, width) = x.size().ok_or_else(|| Error::shape("product", "the last row is not whole"))?;
    let bias = epilogue.bias.map_or(outputs, <[f32]>::len);
    if width != inputs || out != rows * outputs || bias != outputs {
        let weight = format!("({outputs}, {inputs})ᵀ with a bias of {bias}");
        return Err(Error::shape("product", format!("({rows}, {width}) times {weight} into {out} values")));
    }
    Ok(rows)
}

/// An output that several tasks write, each its own part.
struct Shared<U> {
    start: *mut U,
    len: usize,
}

// SAFETY: only `slice` gives access, and its callers keep the parts apart.
unsafe impl<U: Send> Sync for Shared<U> {}

impl<U> Shared<U> {
    /// Values `start..start + len`.
    ///
    /// # Safety
    /// No other slice of these values may be alive.
    #[expect(clippy::mut_from_ref, reason = "disjoint parts of one output")]
    unsafe fn slice(&self, start: usize, len: usize) -> &mut [U] {
        assert!(start + len <= self.len, "a task writes past the output");
        // SAFETY: inside of the output, as just checked; not shared, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// Sums of a block's rows for one panel, by the micro-kernel.
#[cfg(target_arch = "x86_64")]
pub fn tiles(x: &[bf16], stride: usize, lines: &[Line], sums: &mut [f32], inputs: usize) {
    let rows = sums.len() / PANEL;
    assert!(rows == 0 || x.len() >= (rows - 1) * stride + inputs.next_multiple_of(2), "the block is too short");
    for (depth, lines) in lines.chunks(DEPTH / 2 * (PANEL / 16)).enumerate() {
        let (mut rest, mut row) = (&mut *sums, 0);
        while row < rows {
            // Tiles of as equal a height as can be: one of a single row would wait for its own sums.
            let left = (rows - row).div_ceil(TILE);
            let height = (rows - row).div_ceil(left);
            let (sums, tail) = rest.split_at_mut(height * PANEL);
            // SAFETY: callers come here on processors that have the instructions; by the assertion above, x reaches
            // over each row's inputs.
            unsafe { avx512::tile(x[row * stride + depth * DEPTH..].as_ptr(), stride, lines, sums, depth > 0) };
            (rest, row) = (tail, row + height);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub fn tiles(_: &[bf16], _: usize, _: &[Line], _: &mut [f32], _: usize) {}

/// The same by a product of f32, for processors without the instructions.
fn widened(x: &[bf16], stride: usize, lines: &[Line], sums: &mut [f32], inputs: usize) -> Result<()> {
    let rows = sums.len() / PANEL;
    let mut wide = vec![0.0; rows * inputs];
    for (row, wide) in wide.chunks_exact_mut(inputs).enumerate() {
        simd!(vector::widen_bf16(wide, &x[row * stride..][..inputs]));
    }
    let pairs: &[[bf16; 2]] = bytemuck::cast_slice(lines);
    let mut weights = vec![0.0; inputs.next_multiple_of(2) * PANEL];
    for (pairs, rows) in pairs.chunks_exact(PANEL).zip(weights.chunks_exact_mut(2 * PANEL)) {
        let (even, odd) = rows.split_at_mut(PANEL);
        for (pair, (even, odd)) in pairs.iter().zip(even.iter_mut().zip(odd)) {
            (*even, *odd) = (pair[0].to_f32(), pair[1].to_f32());
        }
    }
    matmul_by_rows(sums, PANEL, 0.0, 1.0, Mat::new(&wide, rows, inputs), Mat::new(&weights, inputs, PANEL))
}

#[cfg(test)]
mod tests {
    use super::super::Activation;
    use super::*;

    fn wave(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    fn rounded(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect()
    }

    /// The definition, in f64 on operands rounded to bf16.
    fn expected(x: &[f32], weight: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
        let (x, weight) = (rounded(x), rounded(weight));
        let dot = |i: usize| (0..k).map(|l| x[i / n * k + l] * weight[i % n * k + l]).sum();
        (0..m * n).map(dot).collect()
    }

    /// f32 sums of k products of numbers up to 1 in any order.
    fn bound(k: usize) -> f64 {
        k as f64 * 1e-7 * 4.0
    }

    #[test]
    fn agrees_with_the_definition_at_odd_sizes_with_and_without_the_instructions() {
        let sizes = [(1, 64, 2), (1, 1, 1), (5, 65, 33), (7, 100, 64), (13, 31, 1025), (250, 130, 96), (6, 200, 2049)];
        for (m, n, k) in sizes {
            let (x, weight) = (wave(m * k, 0.37), wave(n * k, 0.11));
            let want = expected(&x, &weight, (m, n, k));
            let packed = PackedBf16::new(&weight, n, k).unwrap();
            for native in [false, has_bf16()] {
                let mut out = vec![f32::NAN; m * n];
                packed.run(Operand::new(&x, k), &mut out, Epilogue::default(), native).unwrap();
                for (out, want) in out.iter().zip(&want) {
                    assert!((*out as f64 - want).abs() <= bound(k), "{m} x {n} x {k}: {out}, want {want}");
                }
            }
        }
    }

    #[test]
    fn epilogue_and_types_of_operands() {
        let (m, n, k) = (9, 70, 40);
        let (x, weight, bias) = (wave(m * k, 0.7), wave(n * k, 0.3), wave(n, 0.9));
        let want = expected(&x, &weight, (m, n, k));
        let narrow: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let packed = PackedBf16::new(&weight, n, k).unwrap();
        let epilogue = Epilogue { bias: Some(&bias), residual: true, activation: Some(Activation::Relu) };
        let mut out = vec![bf16::from_f32(0.5); m * n];
        packed.forward(Operand::new(&narrow, k), &mut out, epilogue).unwrap();
        for (i, (out, want)) in out.iter().zip(&want).enumerate() {
            let want = (want + bias[i % n] as f64 + 0.5).max(0.0);
            // Rounding to bf16 keeps 8 bits.
            assert!((out.to_f64() - want).abs() <= bound(k) + want / 256.0, "{out}, want {want}");
        }
    }

    #[test]
    fn refuses_shapes_that_do_not_fit() {
        assert!(PackedBf16::new(&[0.0f32; 5], 2, 3).is_err());
        let packed = PackedBf16::new(&[0.0f32; 6], 2, 3).unwrap();
        let mut out = [0.0f32; 4];
        let x = [0.0f32; 6];
        assert!(packed.forward(Operand::new(&x, 2), &mut out, Epilogue::default()).is_err());
        assert!(packed.forward(Operand::new(&x, 3), &mut out[1..], Epilogue::default()).is_err());
        assert!(packed.forward(Operand::new(&x, 3), &mut out, Epilogue::bias(&[0.0; 3])).is_err());
        assert!(packed.forward(Operand::new(&x, 3), &mut out, Epilogue::bias(&[0.0; 2])).is_ok());
        assert!(packed.forward(Operand::new(&x[..0], 3), &mut out[..0], Epilogue::default()).is_ok());
    }
}
