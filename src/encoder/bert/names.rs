//! Where the layers of a model lie in its files.

use super::config::BertConfig;
use crate::encoder::transformer::Layout;

/// Where the layers of a model lie.
pub struct Names {
    /// What its tensors begin with where it was saved with a head for some task.
    pub part: &'static str,
    /// Its blocks, each under its number.
    pub blocks: &'static str,
    pub block: Layout,
}

const BERT: Names = Names {
    part: "bert",
    blocks: "encoder.layer",
    block: Layout {
        norm_first: false,
        qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
        out: "attention.output.dense",
        norm1: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        norm2: "output.LayerNorm",
    },
};

const DISTILBERT: Names = Names {
    part: "distilbert",
    blocks: "transformer.layer",
    block: Layout {
        norm_first: false,
        qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
        out: "attention.out_lin",
        norm1: "sa_layer_norm",
        up: "ffn.lin1",
        down: "ffn.lin2",
        norm2: "output_layer_norm",
    },
};

/// Those of a configuration.
pub fn names(config: &BertConfig) -> Names {
    if config.distilled { DISTILBERT } else { BERT }
}
