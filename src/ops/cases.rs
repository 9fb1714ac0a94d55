//! One table of operations with inputs: it drives the gradient checks, the comparison of devices and the
//! benchmarks, so that an operation that is not in it is not tested. Those that train are [`Case`]s, those that serve
//! inference alone are in [`inference`].

mod dense;
mod elementwise;
pub mod inference;
mod sequences;
mod together;

use std::ops::Range;
use std::sync::Arc;

pub use elementwise::{feature_rows, kinks};
pub use together::large as together;

use half::f16;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{CrossAttention, CrossEntropy, Dropout, Gold, Mlp, MultiPool, Operand, Pairing, Project, Score};
use crate::autograd::{Op, Tape, Var};
use crate::error::Result;
use crate::random::{Purpose, generator};
use crate::tensor::{FeatureRows, Indices, Ragged, RowTable, Tensor, Textbook};

type Apply = Box<dyn Fn(&Tape, &[&Var]) -> Result<Var> + Send + Sync>;

/// An operation on given inputs.
pub struct Case {
    /// The operation and its sizes.
    pub name: String,
    /// Values of its inputs.
    pub inputs: Vec<Tensor>,
    apply: Apply,
}

impl Case {
    fn new<O: Op>(sizes: impl Into<String>, inputs: Vec<Tensor>, make: impl Fn() -> O + Send + Sync + 'static) -> Case {
        let name = format!("{} {}", make().name(), sizes.into());
        Case { name, inputs, apply: Box::new(move |tape, inputs| tape.apply(make(), inputs)) }
    }

    /// Runs the operation on a tape.
    pub fn apply(&self, tape: &Tape, inputs: &[&Var]) -> Result<Var> {
        (self.apply)(tape, inputs)
    }
}

/// Small cases at odd sizes, where edges of chunks and vectors show.
pub fn small() -> Result<Vec<Case>> {
    let mut draw = Draw::new(1);
    let mut cases = Vec::new();
    for (rows, width, d) in [(1, 8, 5), (31, 24, 16), (33, 64, 100), (100, 40, 33), (257, 16, 7)] {
        cases.push(draw.project(rows, width, d, 1)?);
    }
    for (rows, width, d) in
        [(1, 8, 1), (31, 40, 200), (33, 64, 100), (257, 72, 128), (300, 136, 33), (65, 512, 256), (21_057, 72, 100)]
    {
        cases.push(draw.project(rows, width, d, 0)?);
    }
    for (items, longest, d) in [(1, 1, 3), (5, 64, 33), (31, 7, 16), (100, 3, 5)] {
        cases.push(draw.multi_pool(items, longest, d)?);
    }
    for (rows, parts, d) in [(1, vec![3], 4), (33, vec![5, 7], 16), (257, vec![33, 1, 20], 9)] {
        cases.push(draw.mlp(rows, &parts, d)?);
    }
    for (mentions, candidates, longest, d, heads) in [
        (1, 1, 1, 4, 1),
        (3, 5, 64, 12, 3),
        (31, 3, 9, 33, 1),
        (2, 33, 5, 16, 16),
        (7, 40, 4, 10, 2),
        (1, 3, 512, 24, 3),
        (3, 2, 4, 256, 8),
    ] {
        cases.push(draw.cross_attention(mentions, candidates, longest, d, heads, false)?);
        cases.push(draw.cross_attention(mentions, candidates, longest, d, heads, true)?);
    }
    for (mentions, candidates, d) in [(1, 1, 1), (3, 11, 33), (31, 10, 16), (1, 1000, 8)] {
        cases.push(draw.score(mentions, candidates, d)?);
        cases.push(draw.cross_entropy(mentions, candidates)?);
    }
    // Wider than a warp has at a time.
    for d in [257, 768] {
        cases.push(draw.score(3, 4, d)?);
    }
    cases.push(draw.dropout(257, 33));
    cases.push(draw.dropout_of_part(129, 33));
    cases.extend(dense::small()?);
    cases.extend(elementwise::small()?);
    cases.extend(together::small()?);
    cases.extend(sequences::small()?);
    cases.extend(two_layers(&mut Draw::new(5))?);
    Ok(cases)
}

/// Those of which devices make one launch of two layers: all that a lane and a fragment can have at the edges of widths.
fn two_layers(draw: &mut Draw) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (rows, parts, d) in [
        (9, vec![4, 20, 8], 12),
        (17, vec![36, 28], 20),
        (130, vec![8, 12], 4),
        (3, vec![300], 100),
        (2, vec![128], 128),
    ] {
        cases.push(draw.mlp(rows, &parts, d)?);
    }
    // More parts than a launch takes.
    cases.push(draw.mlp(5, &[4; 4], 8)?);
    for (mentions, candidates, longest, d) in [(5, 7, 3, 28), (3, 47, 4, 100), (1, 3, 2, 128)] {
        cases.push(draw.cross_attention(mentions, candidates, longest, d, 1, false)?);
    }
    Ok(cases)
}

/// A projection of so many rows that blocks take twice as many as usual on a device with this many multiprocessors.
pub fn tall(multiprocessors: usize) -> Result<Case> {
    Draw::new(3).project(256 * multiprocessors + 1, 72, 100, 0)
}

/// The same projection whole, of all rows but the last few, which too few blocks are left for, and of these.
pub fn tall_and_parts(multiprocessors: usize) -> Result<[Case; 3]> {
    let rows = 256 * multiprocessors + 1;
    let cut = rows - 300;
    let (features, inputs) = Draw::new(4).features(rows, 8, 100, 0)?;
    let part = |rows: Range<usize>| {
        let features = FeatureRows::new(features.table.clone(), features.rows[rows].to_vec());
        projection(format!("{} rows", features.len()), features, inputs.clone())
    };
    Ok([part(0..rows), part(0..cut), part(cut..rows)])
}

/// The cases of the paper's WikiDiverse step: 128 mentions of 10 candidates, d = 100.
pub fn wikidiverse() -> Result<Vec<Case>> {
    let mut draw = Draw::new(2);
    let mut cases = vec![
        draw.project(64_000, 768, 100, 0)?,
        draw.project(25_600, 512, 100, 0)?,
        draw.multi_pool(1280, 39, 100)?,
        draw.mlp(1280, &[300], 100)?,
        draw.mlp(1280, &[100, 100], 100)?,
        draw.cross_attention(128, 10, 39, 100, 1, false)?,
        draw.cross_attention(128, 10, 39, 100, 1, true)?,
        draw.score(128, 10, 100)?,
        draw.cross_entropy(128, 10)?,
        draw.dropout(25_600, 100),
    ];
    cases.extend(dense::wikidiverse()?);
    cases.extend(elementwise::wikidiverse()?);
    Ok(cases)
}

fn projection(sizes: impl Into<String>, features: FeatureRows, inputs: Vec<Tensor>) -> Case {
    Case::new(sizes, inputs, move || Project {
        textbook_rows: features.len(),
        features: features.clone(),
        eps: 1e-5,
        sequences: None,
    })
}

/// Draws operands.
struct Draw(ChaCha8Rng);

impl Draw {
    fn new(seed: u64) -> Draw {
        Draw(generator(seed, Purpose::Benchmark, 0))
    }

    /// Uniform with variance 1.
    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.0.random_range(-1.732..1.732)).collect()
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let mut tensor = Tensor::zeros(shape);
        tensor.data_mut().copy_from_slice(&self.values(shape.iter().product()));
        tensor
    }

    /// A weight that keeps the variance of what it multiplies.
    fn weight(&mut self, outputs: usize, inputs: usize) -> Tensor {
        let mut tensor = self.tensor(&[outputs, inputs]);
        tensor.data_mut().iter_mut().for_each(|x| *x /= (inputs as f32).sqrt());
        tensor
    }

    fn sequences(&mut self, items: usize, longest: usize) -> Result<Ragged> {
        let lengths: Vec<usize> = (0..items).map(|_| self.0.random_range(1..=longest)).collect();
        Ragged::new(lengths, Textbook { sequences: items, length: longest })
    }

    fn pairs(mentions: usize, candidates: usize) -> Result<Pairing> {
        let n = mentions * candidates;
        // Every third entity serves two mentions, as popular candidates do.
        let entity = |p: usize| if p % 3 == 1 && p >= candidates { p - candidates } else { p };
        let left = (0..n).map(|p| (p / candidates) as u32).collect();
        Pairing::new(left, mentions, (0..n).map(|p| entity(p) as u32).collect(), n)
    }

    /// Rows of a table that stores all as f16 but for the last `wide` of them, and the inputs of their projection.
    fn features(&mut self, rows: usize, width: usize, d: usize, wide: usize) -> Result<(FeatureRows, Vec<Tensor>)> {
        let stored = rows + 3;
        let mut table = RowTable::new(width);
        let values: Vec<f16> = self.values((stored - wide) * width).into_iter().map(f16::from_f32).collect();
        table.push_f16(values.into())?;
        if wide > 0 {
            table.push_f32(self.values(wide * width).into())?;
        }
        let numbers: Indices = (0..rows).map(|_| self.0.random_range(0..stored as u32)).collect();
        let inputs = vec![self.weight(d, width), self.tensor(&[d]), self.tensor(&[d]), self.tensor(&[d])];
        Ok((FeatureRows::new(Arc::new(table), numbers), inputs))
    }

    fn project(&mut self, rows: usize, width: usize, d: usize, wide: usize) -> Result<Case> {
        let (features, inputs) = self.features(rows, width, d, wide)?;
        Ok(projection(format!("{rows} rows {width} -> {d}, {wide} wide"), features, inputs))
    }

    fn multi_pool(&mut self, items: usize, longest: usize, d: usize) -> Result<Case> {
        let sequences = self.sequences(items, longest)?;
        let inputs = vec![self.tensor(&[sequences.rows(), d]), self.tensor(&[items, d])];
        let name = format!("{items} sequences up to {longest}, d {d}");
        Ok(Case::new(name, inputs, move || MultiPool { sequences: sequences.clone() }))
    }

    fn mlp(&mut self, rows: usize, parts: &[usize], d: usize) -> Result<Case> {
        let width = parts.iter().sum();
        let mut inputs = vec![self.weight(d, width), self.tensor(&[d]), self.weight(d, d), self.tensor(&[d])];
        inputs.extend(parts.iter().map(|&w| self.tensor(&[rows, w])));
        Ok(Case::new(format!("{rows} rows {parts:?} -> {d}"), inputs, move || Mlp { textbook_rows: rows }))
    }

    /// Mentions as queries over entities' sequences, or the reverse.
    fn cross_attention(
        &mut self,
        mentions: usize,
        candidates: usize,
        longest: usize,
        d: usize,
        heads: usize,
        reverse: bool,
    ) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let pairs = if reverse { pairs.flip() } else { pairs };
        let sequences = self.sequences(pairs.by_right().len(), longest)?;
        let starts = pairs.starts(&sequences)?;
        let mut inputs = vec![self.tensor(&[pairs.by_left().len(), d]), self.tensor(&[sequences.rows(), d])];
        for _ in 0..4 {
            inputs.extend([self.weight(d, d), self.tensor(&[d])]);
        }
        inputs.extend([self.tensor(&[d]), self.tensor(&[d])]);
        let (left, right) = (pairs.by_left().len(), pairs.by_right().len());
        let name = format!("{left} queries x {right} sequences up to {longest}, d {d}, heads {heads}");
        Ok(Case::new(name, inputs, move || CrossAttention {
            heads,
            eps: 1e-5,
            sequences: sequences.clone(),
            pairs: pairs.clone(),
            starts: starts.clone(),
            textbook_pairs: pairs.len(),
        }))
    }

    fn score(&mut self, mentions: usize, candidates: usize, d: usize) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let operands = [Operand::Pair, Operand::Item, Operand::Pair];
        let sides = |operand| match operand {
            Operand::Pair => [pairs.len(); 2],
            Operand::Item => [pairs.by_left().len(), pairs.by_right().len()],
        };
        let inputs = operands.iter().flat_map(|&o| sides(o)).map(|rows| self.tensor(&[rows, d])).collect();
        let name = format!("{mentions} x {candidates}, d {d}");
        Ok(Case::new(name, inputs, move || Score { pairs: pairs.clone(), operands: operands.to_vec() }))
    }

    fn cross_entropy(&mut self, mentions: usize, candidates: usize) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let gold = (0..mentions).map(|m| (m * candidates + (7 * m) % candidates) as u32).collect();
        let gold = Gold::new(&pairs, gold);
        let inputs = vec![self.tensor(&[6, pairs.len()])];
        let name = format!("{mentions} x {candidates}");
        Ok(Case::new(name, inputs, move || CrossEntropy { pairs: pairs.clone(), gold: gold.clone() }))
    }

    fn dropout(&mut self, rows: usize, width: usize) -> Case {
        let inputs = vec![self.tensor(&[rows, width])];
        Case::new(format!("{rows} x {width}"), inputs, || Dropout { p: 0.3, seed: 5, stream: (1, 2), places: None })
    }

    /// Every third row of an array.
    fn dropout_of_part(&mut self, rows: usize, width: usize) -> Case {
        let (inputs, places) = (vec![self.tensor(&[rows, width])], (0..rows as u32).map(|row| 3 * row + 1).collect());
        let places: Indices = places;
        let op = move || Dropout { p: 0.3, seed: 5, stream: (1, 2), places: Some(places.clone()) };
        Case::new(format!("{rows} x {width} of more rows"), inputs, op)
    }
}
