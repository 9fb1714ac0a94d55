//! In which blocks each matrix of a model is kept that is asked for in one type of blocks: where rounding costs most, in
//! more bits.
//!
//! Q4_K and Q5_K are the mixtures that llama.cpp calls Q4_K_M and Q5_K_M: values and the MLP's last layer are Q6_K in the first
//! and the last eighth of the blocks and in every third between, and the last layer of all is Q6_K. Rows that are no whole
//! blocks of 256 weights are kept in blocks of 32 with as many bits or more.
//!
//! With a calibration a text says which matrices have more bits: of all mixtures that take no more bytes than the fixed one, that
//! which leads the model astray least. What a matrix does to the model is reckoned as the squared error of its products, relative
//! to their squares, times what such an error did when all of its group were rounded (a divergence falls with errors' squares).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::error::Result;
use crate::llama::{Calibration, LlamaConfig, layout};
use crate::tensor::{BlockType, Matrix};

/// Rows of a matrix that are rounded to see what a type costs.
const SAMPLE: usize = 128;

/// What a matrix of a calibrated mixture may be kept in.
const CHOICES: [BlockType; 7] = [
    BlockType::Q4_1,
    BlockType::Q4K,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q5K,
    BlockType::Q6K,
    BlockType::Q8_0,
];

/// A type that a matrix could be kept in.
#[derive(Clone, Copy, Debug)]
struct Choice {
    kind: BlockType,
    bytes: u64,
    /// Squared error of the products, relative to the products' squares; then what it does to the model, in nats.
    error: f64,
}

/// The type of a layer's matrix, such as `model.layers.0.self_attn.v_proj`.
pub fn block_type(asked: BlockType, layer: &str, config: &LlamaConfig) -> BlockType {
    let (last, embedding) = (layer == layout::HEAD, layer == layout::EMBEDDING);
    let wanted = match asked {
        BlockType::Q4K | BlockType::Q5K | BlockType::Q6K => {
            let heavy = last || embedding && config.tied || is_sensitive(layer, config.layers);
            if heavy { BlockType::Q6K } else { asked }
        }
        _ if last || embedding => BlockType::Q8_0,
        _ => asked,
    };
    let columns = layout::matrix_shape(config, layer).map_or(0, |[_, columns]| columns);
    match wanted {
        _ if columns.is_multiple_of(wanted.weights()) => wanted,
        BlockType::Q4K => BlockType::Q5_0,
        BlockType::Q5K => BlockType::Q5_1,
        BlockType::Q6K => BlockType::Q8_0,
        simple => simple,
    }
}

/// The type of each matrix by what a text shows. `matrix` reads a layer's.
///
/// Fails if a matrix cannot be read.
pub fn calibrated(
    asked: BlockType,
    config: &LlamaConfig,
    calibration: &Calibration,
    matrix: impl Fn(&str) -> Result<Matrix>,
) -> Result<HashMap<String, BlockType>> {
    let mut budget = 0;
    // Choices of each matrix, or of those together that are kept in one type, by the first of them.
    let mut choices: BTreeMap<String, Vec<Choice>> = BTreeMap::new();
    for group in calibration.groups() {
        let mut of_group = Vec::new();
        for layer in &group.layers {
            let (weight, fixed) = (matrix(layer)?, block_type(asked, layer, config));
            budget += (weight.rows() * fixed.bytes(weight.columns())) as u64;
            of_group.push(costs(&weight, calibration.importance(layer).unwrap_or_default()));
        }
        let probe = of_group.iter().flatten().filter(|choice| choice.kind == group.kind);
        let error: f64 = probe.map(|choice| choice.error).sum();
        let by_error = group.divergence.max(0.0) / error.max(f64::MIN_POSITIVE);
        of_group.iter_mut().flatten().for_each(|choice| choice.error *= by_error);
        for (layer, own) in group.layers.iter().zip(of_group) {
            match choices.entry(layout::first_of_same_type(layer)) {
                Entry::Vacant(entry) => drop(entry.insert(own)),
                // Of the same columns, so that the types are the same ones.
                Entry::Occupied(mut entry) => entry.get_mut().iter_mut().zip(own).for_each(|(all, own)| {
                    (all.bytes, all.error) = (all.bytes + own.bytes, all.error + own.error);
                }),
            }
        }
    }
    let kinds = within(&choices.values().cloned().collect::<Vec<_>>(), budget);
    let kinds: HashMap<String, BlockType> = choices.into_keys().zip(kinds).collect();
    let layers = calibration.groups().iter().flat_map(|group| &group.layers);
    Ok(layers.map(|layer| (layer.clone(), kinds[&layout::first_of_same_type(layer)])).collect())
}

/// What each type would cost a matrix whose columns are multiplied by values of these mean squares.
fn costs(weight: &Matrix, importance: &[f32]) -> Vec<Choice> {
    let columns = weight.columns();
    let kinds: Vec<BlockType> = CHOICES.into_iter().filter(|kind| columns.is_multiple_of(kind.weights())).collect();
    let rows: Vec<usize> = (0..weight.rows()).step_by(weight.rows().div_ceil(SAMPLE).max(1)).collect();
    // Of each row the squares of its products, and of their errors in each type: summed in order, so that runs agree.
    let of_row = |&row: &usize| -> (f64, Vec<f64>) {
        let (mut exact, mut back) = (vec![0.0; columns], vec![0.0; columns]);
        weight.row(row, &mut exact);
        let squares = |of: &mut dyn Iterator<Item = f32>| -> f64 {
            of.zip(importance).map(|(x, &count)| f64::from(count) * f64::from(x) * f64::from(x)).sum()
        };
        let errors = kinds.iter().map(|kind| {
            let mut blocks = vec![0; kind.bytes(columns)];
            kind.quantize(&exact, Some(importance), &mut blocks);
            kind.dequantize(&blocks, &mut back);
            squares(&mut exact.iter().zip(&back).map(|(x, back)| x - back))
        });
        let errors = errors.collect();
        (squares(&mut exact.iter().copied()), errors)
    };
    let found: Vec<(f64, Vec<f64>)> = rows.par_iter().map(of_row).collect();
    let all: f64 = found.iter().map(|(squares, _)| squares).sum();
    let choice = |(at, kind): (usize, BlockType)| Choice {
        kind,
        bytes: (weight.rows() * kind.bytes(columns)) as u64,
        error: found.iter().map(|(_, errors)| errors[at]).sum::<f64>() / all.max(f64::MIN_POSITIVE),
    };
    kinds.iter().copied().enumerate().map(choice).collect()
}

/// Of each matrix's choices one, so that all errors together are least within so many bytes: what a byte must save is raised until
/// they fit. Of each matrix the smallest, if nothing else does.
fn within(choices: &[Vec<Choice>], budget: u64) -> Vec<BlockType> {
    let at = |price: f64| -> Vec<Choice> {
        let cost = |choice: &&Choice| choice.error + price * choice.bytes as f64;
        let best = |of: &Vec<Choice>| of.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).copied();
        choices.iter().filter_map(best).collect()
    };
    let fits = |price: f64| at(price).iter().map(|choice| choice.bytes).sum::<u64>() <= budget;
    // From nothing to where a byte is dearer than any error.
    let (mut low, mut high) = (0.0, choices.iter().flatten().map(|choice| choice.error).fold(0.0, f64::max) + 1.0);
    if fits(low) {
        high = low;
    }
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if fits(middle) { high = middle } else { low = middle }
    }
    let mut chosen = at(high);
    // What is left of the bytes goes to whom it helps most for each byte, as long as it is enough for somebody.
    let mut left = budget.saturating_sub(chosen.iter().map(|choice| choice.bytes).sum());
    loop {
        let better = chosen.iter().zip(choices).enumerate().flat_map(|(at, (now, of))| {
            let gain =
                |other: &Choice| (now.error - other.error) / (other.bytes.saturating_sub(now.bytes)).max(1) as f64;
            let fits = |other: &&Choice| other.error < now.error && other.bytes <= now.bytes + left;
            of.iter().filter(fits).map(move |other| (at, *other, gain(other))).collect::<Vec<_>>()
        });
        let Some((at, other, _)) = better.max_by(|a, b| a.2.total_cmp(&b.2)) else { break };
        left = left + chosen[at].bytes - other.bytes;
        chosen[at] = other;
    }
    chosen.into_iter().map(|choice| choice.kind).collect()
}

/// Whether a matrix of a block is one that costs most when it is rounded.
fn is_sensitive(layer: &str, blocks: usize) -> bool {
    let mut parts = layer.strip_prefix("model.layers.").unwrap_or("").splitn(2, '.');
    let (block, part) = (parts.next().and_then(|block| block.parse::<usize>().ok()), parts.next());
    let (Some(block), Some("self_attn.v_proj" | "mlp.down_proj")) = (block, part) else { return false };
    let eighth = blocks / 8;
    block < eighth || block >= 7 * blocks / 8 || (block - eighth) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llama::Preset;

    #[test]
    fn what_costs_most_has_more_bits_and_rows_are_whole_blocks() {
        let wide = Preset::SevenB.config();
        let of = |asked, layer: &str, config: &LlamaConfig| block_type(asked, layer, config);
        let (q4, q6) = (BlockType::Q4K, BlockType::Q6K);
        for (layer, want) in [
            ("model.layers.0.self_attn.q_proj", q4),
            ("model.layers.0.self_attn.v_proj", q6),
            ("model.layers.3.mlp.down_proj", q6),
            ("model.layers.4.mlp.down_proj", q4),
            ("model.layers.6.mlp.down_proj", q6),
            ("model.layers.27.self_attn.v_proj", q6),
            ("model.layers.28.mlp.down_proj", q6),
            ("model.layers.31.mlp.up_proj", q4),
            (layout::EMBEDDING, q4),
            (layout::HEAD, q6),
        ] {
            assert_eq!(of(q4, layer, &wide), want, "{layer}");
        }
        assert_eq!(of(q6, "model.layers.5.mlp.up_proj", &wide), q6);
        assert_eq!(of(BlockType::Q4_0, layout::EMBEDDING, &wide), BlockType::Q8_0);
        assert_eq!(of(q4, layout::EMBEDDING, &LlamaConfig { tied: true, ..wide.clone() }), q6);
        // 576 is no multiple of 256, 1536 is: SmolLM2-135M's.
        let narrow = LlamaConfig { hidden_size: 576, intermediate_size: 1536, ..wide };
        for (asked, layer, want) in [
            (q4, "model.layers.0.self_attn.q_proj", BlockType::Q5_0),
            (BlockType::Q5K, "model.layers.0.mlp.up_proj", BlockType::Q5_1),
            (q4, "model.layers.4.mlp.down_proj", q4),
            (q4, "model.layers.0.self_attn.v_proj", BlockType::Q8_0),
            (q6, layout::HEAD, BlockType::Q8_0),
        ] {
            assert_eq!(of(asked, layer, &narrow), want, "{layer}");
        }
    }

    #[test]
    fn bytes_go_where_they_help_most_and_no_more_are_taken() {
        let choice = |(kind, bytes, error): (BlockType, u64, f64)| Choice { kind, bytes, error };
        let [q4, q5, q6] = [BlockType::Q4K, BlockType::Q5K, BlockType::Q6K];
        let of = |choices: [(BlockType, u64, f64); 3]| choices.map(choice).to_vec();
        // Two that are rounded alike, of which the first does more to the model; five bits are no good step of the first.
        let both =
            [of([(q4, 10, 8.0), (q5, 20, 7.0), (q6, 30, 1.0)]), of([(q4, 10, 2.0), (q5, 20, 1.2), (q6, 30, 0.5)])];
        for (budget, want) in [
            (20, [q4, q4]),
            (29, [q4, q4]),
            // Six bits of the first do not fit: what is left still goes to somebody.
            (30, [q5, q4]),
            (40, [q6, q4]),
            (50, [q6, q5]),
            (60, [q6, q6]),
            (1000, [q6, q6]),
            // Too few for anything: the least.
            (5, [q4, q4]),
        ] {
            assert_eq!(within(&both, budget), want, "{budget} bytes");
        }
    }
}
