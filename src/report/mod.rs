//! Tables on the terminal, what the paper prints, and a page of all of it.

mod comparison;
mod dataset;
mod page;
mod paper;
mod table;

pub use comparison::{comparison_text, hits_line, recall_line};
pub use dataset::{findings_text, statistics_table};
pub use page::{Page, page};
pub use paper::{Paper, Printed};
pub use table::{markdown_table, metrics_table, rank_change_table, rank_changes, reranking_table, table};
