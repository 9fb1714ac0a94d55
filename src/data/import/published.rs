//! The paper's Table 1.

/// Counts of a dataset as the paper prints them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The dataset.
    pub name: &'static str,
    /// Mentions of train, valid and test.
    pub mentions: [usize; 3],
    /// Candidates of a mention.
    pub candidates: usize,
    /// Average length of a sentence in words.
    pub words: f64,
}

impl Published {
    /// WikiMEL's column.
    pub const WIKIMEL: Published =
        Published { name: "WikiMEL", mentions: [18_092, 2_585, 5_169], candidates: 100, words: 10.13 };

    /// WikiDiverse's column.
    pub const WIKIDIVERSE: Published =
        Published { name: "WikiDiverse", mentions: [12_268, 1_459, 1_459], candidates: 10, words: 8.20 };
}
