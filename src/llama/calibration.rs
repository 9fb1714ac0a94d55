//! What a text shows of a model's matrices: how large the values are that their columns are multiplied by, and how far the model
//! is led astray if some of them are rounded.

use std::collections::HashMap;

use super::perplexity::{divergence, pieces};
use super::{Checkpoint, Llama, LlamaConfig, Source, layout};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::BlockType;

/// Of its mean over the columns, the least that a column's mean square counts: another text may reach it.
const LEAST: f64 = 1e-4;

/// What a text shows of a model.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// Mean squares of what goes into products, by the first of the layers that take the same inputs (columns).
    inputs: HashMap<String, Vec<f32>>,
    tied: bool,
    /// What rounding each group of matrices does.
    groups: Vec<Group>,
}

/// Matrices of one kind, which are rounded together to see what becomes of the model.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub layers: Vec<String>,
    /// What they are rounded to.
    pub kind: BlockType,
    /// The Kullback-Leibler divergence of the next token of the model with these rounded from that of the model as it is, in
    /// nats, mean over the text's first piece.
    pub divergence: f64,
}

impl Calibration {
    /// Has a model read a text in pieces of `context` tokens, each of which begins anew, and the first piece again for each group
    /// of matrices that are rounded. `on_step` hears of each (done, all).
    ///
    /// Fails if the text has fewer than two tokens, if the model's values are not finite, if its matrices cannot be kept in blocks, or
    /// if they are in blocks already.
    pub fn of(
        source: &Source,
        gpu: Option<&Gpu>,
        text: &str,
        context: usize,
        mut on_step: impl FnMut(usize, usize),
    ) -> Result<Calibration> {
        if let Source::Gguf(file) = source {
            let reason = "cannot be rounded by a text: that takes the weights of a Hugging Face directory, before they were rounded \
                          (`fissfuse llm convert` writes one)";
            return Err(Error::file(file.path(), reason));
        }
        let llama = Llama::of(source.clone(), &Checkpoint::open(source, None)?, gpu)?;
        let config = llama.config().clone();
        let (_, pieces) = pieces(&llama, text, context.min(config.context))?;
        let groups = layout::groups(&config);
        let all = pieces.len() + groups.len();
        let mut squares = Squares::default();
        for (number, piece) in pieces.iter().enumerate() {
            squares.add(&llama, piece)?;
            on_step(number + 1, all);
        }
        let mut found = Calibration { inputs: squares.means()?, tied: config.tied, groups: Vec::new() };
        let piece = &pieces[0];
        let exact = llama.logits(piece)?;
        // A device may have room for one model.
        drop(llama);
        for (number, layers) in groups.into_iter().enumerate() {
            let columns = layers.first().and_then(|layer| layout::matrix_shape(&config, layer));
            let whole = columns.is_some_and(|[_, columns]| columns.is_multiple_of(BlockType::Q4K.weights()));
            let kind = if whole { BlockType::Q4K } else { BlockType::Q4_1 };
            let checkpoint = Checkpoint::open(source, None)?.rounded(&layers, kind, &found);
            let rounded = Llama::of(source.clone(), &checkpoint, gpu)?.logits(piece)?;
            let divergence = divergence(&exact, &rounded) / piece.len() as f64;
            if !divergence.is_finite() {
                return Err(Error::invalid("the model's logits are not finite"));
            }
            found.groups.push(Group { layers, kind, divergence });
            on_step(pieces.len() + number + 1, all);
        }
        Ok(found)
    }

    /// What rounding each group of matrices does.
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The mean square of what each column of a layer's matrix is multiplied by (columns); none of an embedding that multiplies
    /// nothing.
    pub fn importance(&self, layer: &str) -> Option<&[f32]> {
        let first = match layer {
            layout::EMBEDDING if self.tied => layout::HEAD.to_string(),
            _ => layout::first_of_same_inputs(layer),
        };
        self.inputs.get(&first).map(Vec::as_slice)
    }

    /// Fails if it is of a model of other sizes.
    pub(super) fn expect(&self, config: &LlamaConfig) -> Result<()> {
        for layer in layout::matrices(config) {
            let columns = layout::matrix_shape(config, &layer).map_or(0, |[_, columns]| columns);
            let read = layer != layout::EMBEDDING || config.tied;
            if read && self.importance(&layer).is_none_or(|found| found.len() != columns) {
                return Err(Error::invalid(format!("the calibration is another model's: nothing fits {layer}")));
            }
        }
        Ok(())
    }
}

/// Sums of squares of what goes into products.
#[derive(Default)]
struct Squares {
    /// By the first of the layers that take the same inputs (columns).
    sums: HashMap<String, Vec<f64>>,
    rows: usize,
}

impl Squares {
    fn add(&mut self, llama: &Llama, tokens: &[u32]) -> Result<()> {
        let sums = &mut self.sums;
        llama.engine().observe(tokens, &mut |block, part, x| {
            let layer = block.map_or_else(|| part.to_string(), |block| layout::of_block(block, part));
            let x = x.to_host()?;
            let sums = sums.entry(layer).or_insert_with(|| vec![0.0; x.width()]);
            for row in x.data().chunks_exact(x.width()) {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
            }
            Ok(())
        })?;
        self.rows += tokens.len();
        Ok(())
    }

    /// Mean squares, all above 0.
    fn means(self) -> Result<HashMap<String, Vec<f32>>> {
        let rows = self.rows as f64;
        let mean = |(layer, sums): (String, Vec<f64>)| {
            let least = LEAST * sums.iter().sum::<f64>() / sums.len().max(1) as f64;
            if !least.is_finite() {
                return Err(Error::invalid(format!("what goes into {layer} is not finite")));
            }
            // Where nothing but zeros went in, all columns count alike.
            let least = if least == 0.0 { rows } else { least };
            Ok((layer, sums.iter().map(|sum| (sum.max(least) / rows) as f32).collect()))
        };
        self.sums.into_iter().map(mean).collect()
    }
}
