//! Cases of linear layers, convolutions, layer normalization, attention and the contrastive loss, operations that models are put together from.

use super::{Case, Draw};
use crate::autograd::Tape;
use crate::error::Result;
use crate::ops::linear::{Activation, Windows};
use crate::ops::{Attention, Contrastive, Convolution, LayerNorm, Linear, Pairing};
use crate::tensor::Tensor;

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
        draw.linear(45, &[12], 1, None, true),
    ];
    // Up to 256 values rows stay in registers.
    for (rows, d) in [(1, 4), (33, 100), (67, 33), (130, 256), (5, 257), (70, 300), (3, 1024)] {
        cases.push(draw.layer_norm(rows, d));
    }
    for (pairs, longest, d, heads) in [
        (Pairing::identity(1), [1, 1], 4, 1),
        (Pairing::identity(5), [9, 33], 24, 3),
        (Draw::pairs(3, 5)?.flip(), [9, 7], 33, 1),
        (Draw::pairs(2, 7)?.flip(), [1, 12], 64, 16),
        (Draw::pairs(3, 4)?, [6, 5], 256, 1),
        (Draw::pairs(1, 3)?, [5, 70], 250, 2),
    ] {
        cases.push(draw.attention(pairs, longest, d, heads)?);
    }
    cases.push(draw.self_attention(4, 17, 20, 4, false)?);
    cases.push(draw.self_attention(1, 1, 4, 1, true)?);
    cases.push(draw.self_attention(5, 19, 36, 3, true)?);
    cases.push(draw.self_attention(2, 70, 256, 1, true)?);
    for (images, windows, channels, relu) in [
        // Pixels of a stem, a bottleneck's parts at odd sides, by images and all at once.
        (2, [9, 7, 7, 2, 3], [3, 5], true),
        (3, [5, 4, 3, 1, 1], [9, 33], false),
        (5, [6, 5, 3, 2, 1], [33, 8], true),
        (2, [5, 7, 1, 2, 0], [40, 9], false),
        (2, [7, 5, 1, 1, 0], [12, 65], false),
    ] {
        cases.push(draw.convolution(images, windows, channels, relu));
    }
    for (pairs, d) in [(1, 3), (2, 8), (33, 20), (130, 65)] {
        cases.push(draw.contrastive(pairs, d)?);
    }
    Ok(cases)
}

/// Sizes of a step of models with d = 96: 128 mentions of 10 candidates.
pub(super) fn wikidiverse() -> Result<Vec<Case>> {
    let draw = &mut Draw::new(6);
    Ok(vec![
        draw.linear(25_600, &[96], 96, Some(Activation::Gelu), true),
        draw.layer_norm(25_600, 96),
        draw.attention(Draw::pairs(128, 10)?.flip(), [39, 39], 96, 1)?,
    ])
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
        let what = activation.map_or(String::new(), |activation| format!(", {activation:?}"));
        let name = format!("{rows} rows {parts:?} -> {outputs}{what}");
        Case::new(name, inputs, move || Linear { activation, bias, textbook_rows: rows })
    }

    /// Windows by height, width, kernel, stride and padding; channels of inputs and outputs.
    fn convolution(&mut self, images: usize, windows: [usize; 5], [inputs, outputs]: [usize; 2], relu: bool) -> Case {
        let [height, width, kernel, stride, padding] = windows;
        let windows = Windows { height, width, kernel, stride, padding };
        let weight = self.weight(outputs, kernel * kernel * inputs);
        let tensors = vec![weight, self.tensor(&[outputs]), self.tensor(&[images * height * width, inputs])];
        let (down, across) = windows.size();
        // Windows of two images.
        let at_a_time = 2 * down * across * kernel * kernel * inputs;
        let name =
            format!("{images} images {height} x {width}, {kernel} x {kernel} by {stride}, {inputs} -> {outputs}");
        Case::new(name, tensors, move || Convolution { windows, relu, at_a_time })
    }

    fn layer_norm(&mut self, rows: usize, d: usize) -> Case {
        let inputs = vec![self.tensor(&[rows, d]), self.tensor(&[d]), self.tensor(&[d])];
        Case::new(format!("{rows} x {d}"), inputs, move || LayerNorm { eps: 1e-5, textbook_rows: rows })
    }

    /// Sequences of queries on the left of the pairs, of keys and values on the right.
    fn attention(&mut self, pairs: Pairing, longest: [usize; 2], d: usize, heads: usize) -> Result<Case> {
        let queries = self.sequences(pairs.by_left().len(), longest[0])?;
        let keys = self.sequences(pairs.by_right().len(), longest[1])?;
        let inputs = [&queries, &keys, &keys].map(|sequences| self.tensor(&[sequences.rows(), d])).into();
        let name = format!("{} pairs of up to {longest:?}, d {d}, heads {heads}", pairs.len());
        let op = Attention::new(heads, 1.0 / ((d / heads) as f32).sqrt(), queries, keys, pairs)?;
        Ok(Case::new(name, inputs, move || op.clone()))
    }

    /// The same tensor is queries, keys and values.
    fn self_attention(&mut self, items: usize, longest: usize, d: usize, heads: usize, causal: bool) -> Result<Case> {
        let sequences = self.sequences(items, longest)?;
        let inputs = vec![self.tensor(&[sequences.rows(), d])];
        let scale = 1.0 / ((d / heads) as f32).sqrt();
        let op = Attention::new(heads, scale, sequences.clone(), sequences, Pairing::identity(items))?;
        let op = if causal { op.causal()? } else { op };
        let kind = if causal { "causal " } else { "" };
        let name = format!("attention {kind}of {items} sequences up to {longest} to themselves, d {d}, heads {heads}");
        let apply = move |tape: &Tape, inputs: &[&_]| tape.apply(op.clone(), &[inputs[0]; 3]);
        Ok(Case { name, inputs, apply: Box::new(apply) })
    }

    /// Vectors of length about 1 and a scale of 5, with which the softmax is neither even nor one of its candidates alone.
    fn contrastive(&mut self, pairs: usize, d: usize) -> Result<Case> {
        let inputs = vec![self.weight(pairs, d), self.weight(pairs, d), Tensor::new([1], vec![5f32.ln()])?];
        Ok(Case::new(format!("{pairs} pairs of {d} values"), inputs, || Contrastive))
    }
}
