//! What people read: tables on the terminal, and where a result comes from.

mod provenance;
mod table;

pub use provenance::Provenance;
pub use table::{evaluation_table, table};
