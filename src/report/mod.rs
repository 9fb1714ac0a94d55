//! Tables on the terminal, and what the paper prints.

mod comparison;
mod dataset;
mod paper;
mod table;

pub use comparison::{comparison_text, hits_line};
pub use dataset::{findings_text, statistics_table};
pub use paper::{Paper, Printed};
pub use table::{
    evaluation_table, markdown_table, metrics_table, rank_change_table, rank_changes, reranking_table, table,
};
