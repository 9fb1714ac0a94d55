//! Products with weights in f32, the reference: `out = x Wᵀ`.

use std::cell::RefCell;

use rayon::prelude::*;

use super::bf16::check;
use super::{Epilogue, Operand};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::ops::linear::{ROW_CHUNK, transposed};
use crate::ops::matmul::{Mat, matmul_by_rows};

/// A weight (outputs, inputs), transposed once.
#[derive(Debug)]
pub struct TransposedF32 {
    values: Buffer,
    outputs: usize,
    inputs: usize,
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl TransposedF32 {
    /// Transposes a weight (outputs, inputs).
    pub fn new(weight: Mat) -> TransposedF32 {
        let (outputs, inputs) = weight.size();
        TransposedF32 { values: transposed(weight), outputs, inputs }
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `out = epilogue(x Wᵀ)`. x (n, inputs), out (n, outputs).
    pub fn forward(&self, x: Operand<f32>, out: &mut [f32], epilogue: Epilogue) -> Result<()> {
        check(&x, (self.outputs, self.inputs), out.len(), &epilogue)?;
        if out.is_empty() {
            return Ok(());
        }
        let weight = Mat::new(&self.values, self.inputs, self.outputs);
        out.par_chunks_mut(ROW_CHUNK * self.outputs).enumerate().try_for_each(|(chunk, out)| {
            let (start, rows) = (chunk * ROW_CHUNK, out.len() / self.outputs);
            for out in out.chunks_exact_mut(self.outputs) {
                match (epilogue.bias, epilogue.residual) {
                    (Some(bias), true) => simd!(vector::add(out, bias)),
                    (Some(bias), false) => out.copy_from_slice(bias),
                    (None, true) => {}
                    (None, false) => out.fill(0.0),
                }
            }
            SCRATCH.with_borrow_mut(|scratch| {
                let x = x.rows(start..start + rows, scratch);
                matmul_by_rows(out, self.outputs, 1.0, 1.0, Mat::new(x, rows, self.inputs), weight)
            })?;
            if let Some(activation) = epilogue.activation {
                simd!(activation.apply(out));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Activation;
    use super::*;

    #[test]
    fn epilogue_has_bias_residual_and_activation() {
        let (x, weight) = ([1.0, 2.0, 3.0, 4.0, 5.0, -6.0], [1.0, 0.0, 0.5, 0.0, -1.0, 0.0]);
        let layer = TransposedF32::new(Mat::new(&weight, 2, 3));
        let mut out = [100.0, 0.5, -1.0, -1.0];
        let epilogue = Epilogue { bias: Some(&[1.0, 2.0]), residual: true, activation: Some(Activation::Relu) };
        layer.forward(Operand::new(&x, 3), &mut out, epilogue).unwrap();
        assert_eq!(out, [103.5, 0.5, 1.0, 0.0]);
        layer.forward(Operand::new(&x, 3), &mut out, Epilogue::default()).unwrap();
        assert_eq!(out, [2.5, -2.0, 1.0, -5.0]);
        assert!(layer.forward(Operand::new(&x, 2), &mut out, Epilogue::default()).is_err());
    }
}
