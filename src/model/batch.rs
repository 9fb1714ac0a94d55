//! What one forward pass computes on: feature rows of mentions and of distinct entities, and who meets whom.

use std::sync::Arc;

use crate::ops::Pairing;
use crate::tensor::{Ragged, RowTable};

/// Some rows of a table.
#[derive(Clone, Debug)]
pub struct FeatureRows {
    /// Where the rows lie.
    pub table: Arc<RowTable>,
    /// Their numbers.
    pub rows: Arc<[u32]>,
}

/// Features of one modality of n items.
#[derive(Clone, Debug)]
pub struct Modality {
    /// Token or patch states, sequence after sequence.
    pub tokens: FeatureRows,
    /// Which of them form which item's sequence (n sequences).
    pub sequences: Ragged,
    /// One global vector per item (n).
    pub global: FeatureRows,
}

/// Features of the mentions or of the entities of a batch.
#[derive(Clone, Debug)]
pub struct Side {
    /// Text features.
    pub text: Modality,
    /// Image features.
    pub image: Modality,
}

/// Mentions, the distinct entities among their candidates, and the pairs to score.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Mentions.
    pub mention: Side,
    /// Distinct entities: each is computed once, however many mentions list it.
    pub entity: Side,
    /// Left: mention, right: entity; a mention's candidates stand next to each other, in their order.
    pub pairs: Pairing,
    /// Pair that holds each mention's gold candidate; empty if none is needed.
    pub gold: Vec<u32>,
}
