//! Weights that are packed for one use: the keys and values of an attention head.

use bytemuck::Zeroable;
use half::bf16;

use super::bf16::{Line, PANEL, tiles};

/// A right operand W (outputs, inputs) in bf16, in panels as the micro-kernel takes them.
#[derive(Debug, Default)]
pub struct Panels {
    lines: Vec<Line>,
    outputs: usize,
    inputs: usize,
}

impl Panels {
    /// Takes over W's rows, of `inputs` values each.
    pub fn set_rows<'a>(&mut self, rows: impl ExactSizeIterator<Item = &'a [bf16]>, inputs: usize) {
        self.resize(rows.len(), inputs);
        let per_panel = inputs.div_ceil(2) * PANEL;
        let pairs: &mut [[bf16; 2]] = bytemuck::cast_slice_mut(&mut self.lines);
        for (output, row) in rows.enumerate() {
            let panel = &mut pairs[output / PANEL * per_panel..][..per_panel];
            let places = panel[output % PANEL..].iter_mut().step_by(PANEL);
            let (whole, rest) = row.as_chunks::<2>();
            for (place, pair) in places.zip(whole.iter().copied().chain(rest.iter().map(|&last| [last, bf16::ZERO]))) {
                *place = pair;
            }
        }
    }

    /// Takes over the rows of W's transpose, of `outputs` values each.
    pub fn set_columns<'a>(&mut self, columns: impl ExactSizeIterator<Item = &'a [bf16]>, outputs: usize) {
        self.resize(outputs, columns.len());
        let per_panel = self.inputs.div_ceil(2) * PANEL;
        let pairs: &mut [[bf16; 2]] = bytemuck::cast_slice_mut(&mut self.lines);
        for (input, column) in columns.enumerate() {
            for (panel, part) in column.chunks(PANEL).enumerate() {
                let places = &mut pairs[panel * per_panel + input / 2 * PANEL..][..part.len()];
                places.iter_mut().zip(part).for_each(|(place, &x)| place[input % 2] = x);
            }
        }
    }

    /// All zeros, so that what is no output or no input adds nothing.
    fn resize(&mut self, outputs: usize, inputs: usize) {
        (self.outputs, self.inputs) = (outputs, inputs);
        self.lines.clear();
        self.lines.resize(outputs.div_ceil(PANEL) * inputs.div_ceil(2) * (PANEL / 16), Line::zeroed());
    }

    /// Sums of one panel for rows of x, `stride` apart and of an even number of inputs: `sums` (rows, 64).
    ///
    /// Only for processors where [`crate::device::cpu::has_bf16`].
    pub fn multiply(&self, x: &[bf16], stride: usize, panel: usize, sums: &mut [f32]) {
        let per_panel = self.inputs.div_ceil(2) * (PANEL / 16);
        let lines = self.lines.get(panel * per_panel..(panel + 1) * per_panel).unwrap_or(&[]);
        tiles(x, stride, lines, sums, self.inputs);
    }
}
