//! Cases of linear layers and layer normalization, operations that models are put together from.

use super::{Case, Draw};
use crate::error::Result;
use crate::ops::linear::Activation;
use crate::ops::{LayerNorm, Linear};

/// At odd sizes, where edges of tiles, warps and vectors show.
pub(super) fn small() -> Result<Vec<Case>> {
    let draw = &mut Draw::new(5);
    let mut cases = vec![
        draw.linear(1, &[3], 4, None, true),
        draw.linear(33, &[5, 7], 16, Some(Activation::Relu), true),
        draw.linear(257, &[33, 1, 20], 9, Some(Activation::Gelu), true),
        draw.linear(65, &[40], 100, Some(Activation::Tanh), false),
        draw.linear(600, &[9], 7, Some(Activation::Sigmoid), true),
        draw.linear(31, &[16, 8], 65, Some(Activation::QuickGelu), false),
        draw.linear(67, &[24], 12, None, false),
    ];
    // Up to 256 values rows stay in registers.
    for (rows, d) in [(1, 4), (33, 100), (67, 33), (130, 256), (5, 257), (70, 300), (3, 1024)] {
        cases.push(draw.layer_norm(rows, d));
    }
    Ok(cases)
}

/// Sizes of a step of models with d = 96: 128 mentions of 10 candidates.
pub(super) fn wikidiverse() -> Result<Vec<Case>> {
    let draw = &mut Draw::new(6);
    Ok(vec![draw.linear(25_600, &[96], 96, Some(Activation::Gelu), true), draw.layer_norm(25_600, 96)])
}

impl Draw {
    fn linear(
        &mut self,
        rows: usize,
        parts: &[usize],
        outputs: usize,
        activation: Option<Activation>,
        bias: bool,
    ) -> Case {
        let mut inputs = vec![self.weight(outputs, parts.iter().sum())];
        if bias {
            inputs.push(self.tensor(&[outputs]));
        }
        inputs.extend(parts.iter().map(|&w| self.tensor(&[rows, w])));
        let name = format!("{rows} rows {parts:?} -> {outputs}, {activation:?}");
        Case::new(name, inputs, move || Linear { activation, bias, textbook_rows: rows })
    }

    fn layer_norm(&mut self, rows: usize, d: usize) -> Case {
        let inputs = vec![self.tensor(&[rows, d]), self.tensor(&[d]), self.tensor(&[d])];
        Case::new(format!("{rows} x {d}"), inputs, move || LayerNorm { eps: 1e-5, textbook_rows: rows })
    }
}
