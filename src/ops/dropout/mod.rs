//! Dropout: each value is zeroed with probability p, the others are scaled by 1 / (1 - p).
//!
//! Any shape -> the same shape. Which values go depends on seed, stream and position alone, so that backward
//! draws the same mask again instead of storing it, and a resumed run draws what an undisturbed one draws. Rows that are a part
//! of more have the masks that they have there: a device of several that share a batch draws what one alone would.

mod cuda;

use rayon::prelude::*;

use super::{arity, elementwise};
use crate::autograd::{Cost, InputGrads, Op};
use crate::device::cpu::{Buffer, simd};
use crate::device::cuda::Target;
use crate::error::{Error, Result};
use crate::random::{LANES, philox_lanes};
use crate::tensor::{Indices, Tensor};

const NAME: &str = "dropout";

/// Values one task handles.
const CHUNK: usize = 16 << 10;

/// Values that one draw of the generator covers: value `4 b + i` takes number `i` of block `b`.
const DRAW: usize = 4 * LANES;

/// See the module's documentation.
pub struct Dropout {
    /// Probability of zeroing, in [0, 1).
    pub p: f32,
    /// The run's seed.
    pub seed: u64,
    /// Tells this use from every other one of the run: the step, and which tensor of the step.
    pub stream: (u32, u32),
    /// Where the input's rows stand among those that they are a part of; `None` if they are all of them.
    pub places: Option<Indices>,
}

impl Dropout {
    /// Values in a row, where rows have places.
    fn width(&self, x: &Tensor) -> Result<usize> {
        let Some(places) = &self.places else { return Ok(1) };
        match x.matrix(NAME, "input")? {
            (rows, width) if rows == places.len() && width > 0 => Ok(width),
            (rows, width) => Err(Error::shape(NAME, format!("{rows} rows of {width} at {} places", places.len()))),
        }
    }

    /// What kept values are multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (1.0 - self.p)
    }

    /// A draw is uniform over 2^32 values; the value is kept if it is not below this many of them.
    fn threshold(&self) -> u32 {
        (self.p as f64 * (1u64 << 32) as f64) as u32
    }

    /// `out += mask(x) / (1 - p)` of rows of `width`
    fn add_masked(&self, x: &[f32], width: usize, out: &mut [f32]) {
        let (scale, threshold) = (self.scale(), self.threshold());
        if let Some(places) = &self.places {
            let rows = out.par_chunks_mut(width).zip(x.par_chunks(width)).zip(places.par_iter());
            rows.for_each(|((out, x), &place)| {
                let (mut at, mut values) = (place as u64 * width as u64, out.iter_mut().zip(x));
                while values.len() > 0 {
                    let draws = philox_lanes(self.seed, at / 4, [self.stream.0, self.stream.1]);
                    let first = (at % 4) as usize;
                    for (i, (out, x)) in (first..DRAW).zip(values.by_ref()) {
                        *out += if draws[i % 4][i / 4] >= threshold { x * scale } else { 0.0 };
                    }
                    at += (DRAW - first) as u64;
                }
            });
            return;
        }
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).enumerate().for_each(|(chunk, (out, x))| {
            simd!(for (draw, (out, x)) in out.chunks_mut(DRAW).zip(x.chunks(DRAW)).enumerate() {
                let block = ((chunk * CHUNK + draw * DRAW) / 4) as u64;
                let draws = philox_lanes(self.seed, block, [self.stream.0, self.stream.1]);
                for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
                    *out += if draws[i % 4][i / 4] >= threshold { x * scale } else { 0.0 };
                }
            })
        });
    }
}

impl Op for Dropout {
    type Saved = ();

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "input"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let values = inputs[0].iter().product::<usize>();
        // Those that stay are scaled. Integers decide which.
        let kept = (values as f64 * (1.0 - self.p as f64)) as usize;
        elementwise::cost([kept; 2], [2 * values; 2])
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, ())> {
        let &[x] = arity(NAME, inputs)?;
        if !(0.0..1.0).contains(&self.p) {
            return Err(Error::invalid(format!("dropout {} is not in [0, 1)", self.p)));
        }
        let width = self.width(x)?;
        if let Some(gpu) = x.gpu() {
            let out = gpu.alloc("dropout", x.len())?;
            self.masked_on(gpu, (x.ptr(), width), x.len(), Target { at: out.ptr(), adds: false })?;
            return Ok((Tensor::on_device(x.shape(), out)?, ()));
        }
        let mut out = Buffer::zeros(x.len());
        self.add_masked(x.data(), width, &mut out);
        Ok((Tensor::new(x.shape(), out)?, ()))
    }

    fn backward(&self, (): (), grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = grad.gpu() {
            let to = grads.on_device(0)?;
            return self.masked_on(gpu, (grad.ptr(), self.width(grad)?), grad.len(), to);
        }
        if let Some(to) = grads.get(0) {
            self.add_masked(grad.data(), self.width(grad)?, to);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_part_have_the_masks_of_the_whole() {
        // Widths at which rows begin in the middle of a draw, and at which they have several.
        for width in [1, 5, 64, 100, 131] {
            let dropout = |places| Dropout { p: 0.4, seed: 9, stream: (3, 1), places };
            let values = |rows: usize| Tensor::filled([rows, width], 1.0, None).unwrap();
            let whole = dropout(None).forward(&[&values(700)]).unwrap().0;
            let rows = [0, 3, 4, 350, 699];
            let part = dropout(Some(rows.to_vec().into())).forward(&[&values(rows.len())]).unwrap().0;
            for (row, part) in rows.iter().zip(part.data().chunks(width)) {
                assert_eq!(part, &whole.data()[*row as usize * width..][..width], "row {row} of width {width}");
            }
        }
        let dropout = Dropout { p: 0.4, seed: 9, stream: (3, 1), places: Some(vec![1].into()) };
        assert!(dropout.forward(&[&Tensor::zeros([2, 3])]).is_err());
    }
}
