//! What people read: tables on the terminal, and where a result comes from.

mod dataset;
mod printable;
mod provenance;
mod table;

pub use dataset::{findings_text, statistics_table};
pub use printable::{PrintableWriter, printable, printable_json};
pub use provenance::Provenance;
pub use table::{evaluation_table, metrics_table, rank_change_table, reranking_table, table};
