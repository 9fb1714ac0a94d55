//! In which blocks each matrix of a model is kept that is asked for in one type of blocks: where rounding costs most, in
//! more bits.
//!
//! Q4_K and Q5_K are the mixtures that llama.cpp calls Q4_K_M and Q5_K_M: values and the MLP's last layer are Q6_K in the first
//! and the last eighth of the blocks and in every third between, and the last layer of all is Q6_K. Rows that are no whole
//! blocks of 256 weights are kept in blocks of 32 with as many bits or more.

use crate::llama::{LlamaConfig, layout};
use crate::tensor::BlockType;

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
}
