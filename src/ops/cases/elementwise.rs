//! Cases of operations on single values, on rows and on scores.

use super::{Case, Draw};
use crate::error::Result;
use crate::ops::linear::{Activation, Windows};
use crate::ops::{Combine, Gather, Gold, Hinge, MaxPool, Mix, Multiply, Normalize, Pooling, SequencePool, Sum};
use crate::tensor::{FeatureRows, Tensor};

const ACTIVATIONS: [Activation; 6] = [
    Activation::QuickGelu,
    Activation::Gelu,
    Activation::TanhGelu,
    Activation::Relu,
    Activation::Tanh,
    Activation::Sigmoid,
];

/// Small cases at odd sizes.
pub(super) fn small() -> Result<Vec<Case>> {
    let mut draw = Draw::new(5);
    let mut cases = Vec::new();
    for activation in ACTIVATIONS {
        for (rows, width) in [(1, 1), (31, 9), (257, 65)] {
            cases.push(draw.activation(activation, &[rows, width]));
        }
    }
    for (terms, shape) in [(1, &[1][..]), (2, &[257, 65]), (8, &[31, 3]), (9, &[5, 7, 3]), (17, &[33])] {
        cases.push(draw.sum(terms, shape));
    }
    for (outputs, heights, columns) in [(1, &[1][..], 1), (4, &[3, 3], 257), (10, &[1, 9, 1], 33), (17, &[16], 5)] {
        cases.push(draw.combine(outputs, heights, columns));
    }
    for (x, y) in [
        (&[1, 1][..], &[1, 1][..]),
        (&[257, 65], &[257, 65]),
        (&[31, 7], &[31, 1]),
        (&[257, 33], &[257]),
        (&[5, 3, 100], &[5]),
        (&[9], &[3, 3]),
    ] {
        cases.push(draw.multiply(x, y));
    }
    for (rows, d) in [(1, 2), (31, 33), (257, 100), (5, 768)] {
        cases.push(draw.normalize(rows, d));
    }
    for (rows, modalities, d) in [(1, 1, 1), (31, 2, 33), (257, 3, 100), (33, 8, 5)] {
        cases.push(draw.mix(rows, modalities, d));
    }
    for (mentions, candidates) in [(1, 1), (3, 11), (31, 10), (1, 1000)] {
        cases.push(draw.hinge(mentions, candidates)?);
    }
    for (mentions, candidates, d) in [(1, 1, 1), (3, 11, 33), (31, 10, 100), (1, 257, 130)] {
        cases.push(draw.gather(mentions, candidates, d, false)?);
        cases.push(draw.gather(mentions, candidates, d, true)?);
    }
    for kind in [Pooling::Mean, Pooling::Max] {
        for (items, longest, d) in [(1, 1, 3), (5, 64, 33), (31, 7, 16), (100, 3, 5)] {
            cases.push(draw.sequence_pool(kind, items, longest, d)?);
        }
    }
    for (images, windows, channels) in [(1, [1, 1, 1, 1, 0], 1), (3, [7, 6, 3, 2, 1], 33), (2, [5, 9, 4, 1, 2], 130)] {
        cases.push(draw.max_pool(images, windows, channels));
    }
    cases.extend(draw.of_one_tensor());
    Ok(cases)
}

/// Cases at kinks, where the gradient is what the operation says it is and differences of values say nothing: values
/// are multiples of 1/2, and so often 0, equal, or a margin apart.
pub fn kinks() -> Result<Vec<Case>> {
    let mut draw = Draw::new(6);
    let mut cases = vec![draw.activation(Activation::Relu, &[33, 7])];
    cases.push(draw.hinge(31, 10)?);
    cases.push(draw.sequence_pool(Pooling::Max, 31, 20, 33)?);
    cases.push(draw.normalize(31, 2));
    cases.push(draw.max_pool(3, [7, 6, 3, 2, 1], 33));
    for case in &mut cases {
        case.name += ", at kinks";
        case.inputs
            .iter_mut()
            .for_each(|input| input.data_mut().iter_mut().for_each(|x| *x = (2.0 * *x).round() / 2.0));
    }
    Ok(cases)
}

/// Rows of tables that are f16 and that are not.
pub fn feature_rows() -> Result<Vec<FeatureRows>> {
    let mut draw = Draw::new(7);
    [0, 1].into_iter().map(|wide| Ok(draw.features(257, 33, 1, wide)?.0)).collect()
}

/// Of the paper's WikiDiverse size: 128 mentions of 10 candidates, d = 100.
pub(super) fn wikidiverse() -> Result<Vec<Case>> {
    let mut draw = Draw::new(8);
    Ok(vec![
        draw.activation(Activation::Gelu, &[1280, 100]),
        draw.sum(3, &[1280, 100]),
        draw.combine(4, &[1, 1, 1], 1280),
        draw.multiply(&[1280, 100], &[1280, 100]),
        draw.multiply(&[1280, 100], &[1280]),
        draw.normalize(1280, 100),
        draw.mix(1280, 3, 100),
        draw.hinge(128, 10)?,
        draw.gather(128, 10, 100, false)?,
        draw.sequence_pool(Pooling::Mean, 1280, 39, 100)?,
        draw.sequence_pool(Pooling::Max, 1280, 39, 100)?,
    ])
}

impl Draw {
    fn activation(&mut self, activation: Activation, shape: &[usize]) -> Case {
        Case::new(format!("{activation:?} {shape:?}"), vec![self.tensor(shape)], move || activation)
    }

    fn sum(&mut self, terms: usize, shape: &[usize]) -> Case {
        let coefficients = self.values(terms);
        let inputs = (0..terms).map(|_| self.tensor(shape)).collect();
        Case::new(format!("{terms} of {shape:?}"), inputs, move || Sum { coefficients: coefficients.clone() })
    }

    fn combine(&mut self, outputs: usize, heights: &[usize], columns: usize) -> Case {
        let rows = heights.iter().sum();
        let coefficients: Vec<Vec<f32>> = (0..outputs).map(|_| self.values(rows)).collect();
        let inputs = heights.iter().map(|&height| self.tensor(&[height, columns])).collect();
        let name = format!("{heights:?} -> {outputs} rows of {columns}");
        Case::new(name, inputs, move || Combine { coefficients: coefficients.clone() })
    }

    fn multiply(&mut self, x: &[usize], y: &[usize]) -> Case {
        Case::new(format!("{x:?} by {y:?}"), vec![self.tensor(x), self.tensor(y)], || Multiply)
    }

    fn normalize(&mut self, rows: usize, d: usize) -> Case {
        Case::new(format!("{rows} x {d}"), vec![self.tensor(&[rows, d])], || Normalize)
    }

    fn mix(&mut self, rows: usize, modalities: usize, d: usize) -> Case {
        let mut inputs = vec![self.tensor(&[rows, modalities])];
        inputs.extend((0..modalities).map(|_| self.tensor(&[rows, d])));
        Case::new(format!("{modalities} of {rows} x {d}"), inputs, || Mix)
    }

    fn hinge(&mut self, mentions: usize, candidates: usize) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let gold = (0..mentions).map(|m| (m * candidates + (7 * m) % candidates) as u32).collect();
        let gold = Gold::new(&pairs, gold);
        let inputs = vec![self.tensor(&[3, pairs.len()])];
        let name = format!("{mentions} x {candidates}");
        Ok(Case::new(name, inputs, move || Hinge { pairs: pairs.clone(), gold: gold.clone(), margin: 0.5 }))
    }

    fn gather(&mut self, mentions: usize, candidates: usize, d: usize, reverse: bool) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let pairs = if reverse { pairs.flip() } else { pairs };
        let inputs = vec![self.tensor(&[pairs.by_left().len(), d])];
        let name = format!("{} of {} rows, d {d}", pairs.len(), pairs.by_left().len());
        Ok(Case::new(name, inputs, move || Gather { pairs: pairs.clone() }))
    }

    fn sequence_pool(&mut self, kind: Pooling, items: usize, longest: usize, d: usize) -> Result<Case> {
        let sequences = self.sequences(items, longest)?;
        let inputs = vec![self.tensor(&[sequences.rows(), d])];
        let name = format!("{kind:?} of {items} sequences up to {longest}, d {d}");
        Ok(Case::new(name, inputs, move || SequencePool { sequences: sequences.clone(), kind }))
    }

    /// Windows by height, width, kernel, stride and padding.
    fn max_pool(&mut self, images: usize, windows: [usize; 5], channels: usize) -> Case {
        let [height, width, kernel, stride, padding] = windows;
        let windows = Windows { height, width, kernel, stride, padding };
        let inputs = vec![self.tensor(&[images * height * width, channels])];
        let name = format!("{images} images {height} x {width}, {kernel} x {kernel} by {stride}, {channels} channels");
        Case::new(name, inputs, move || MaxPool { windows })
    }

    /// Operations whose inputs are all one tensor, so that several gradients of one launch go to one place.
    fn of_one_tensor(&mut self) -> Vec<Case> {
        let mut case = |name: &str, shape: &[usize], apply| {
            let inputs: Vec<Tensor> = vec![self.tensor(shape)];
            Case { name: format!("{name} of one tensor {shape:?}"), inputs, apply }
        };
        vec![
            case("sum", &[33, 5], Box::new(|tape, x| tape.apply(Sum { coefficients: vec![2.0, -0.5] }, &[x[0], x[0]]))),
            case("multiply", &[33, 5], Box::new(|tape, x| tape.apply(Multiply, &[x[0], x[0]]))),
            case("mix", &[33, 2], Box::new(|tape, x| tape.apply(Mix, &[x[0], x[0], x[0]]))),
            case(
                "combine",
                &[1, 33],
                Box::new(|tape, x| tape.apply(Combine { coefficients: vec![vec![2.0, -0.5]; 2] }, &[x[0], x[0]])),
            ),
        ]
    }
}
