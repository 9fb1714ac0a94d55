//! Tables on the terminal.

mod dataset;
mod table;

pub use dataset::{findings_text, statistics_table};
pub use table::{evaluation_table, metrics_table, rank_change_table, reranking_table, table};
