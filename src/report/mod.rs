//! What people read: tables on the terminal, and where a result comes from.

mod dataset;
mod provenance;
mod table;

pub use dataset::{findings_text, statistics_table};
pub use provenance::Provenance;
pub use table::{evaluation_table, rank_change_table, reranking_table, table};
