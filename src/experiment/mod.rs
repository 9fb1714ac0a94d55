//! Experiments: many trainings, evaluations and re-rankings that one table compares (section 4 of the paper).
//!
//! A file ([`ExperimentFile`]) says which rows the table has. A [`Plan`] makes trials of them, [`run`] trains and evaluates
//! what is not there yet, and a [`Summary`] is the table.

mod examples;
mod file;
mod plan;
mod question;
mod run;
mod summary;
mod text;
mod trial;

pub use examples::{Example, Ranked};
pub use file::{BUILT_IN, ExperimentFile, Question, Row};
pub use plan::{Plan, PlannedRow, Trial};
pub use question::{Asked, ask};
pub use run::{Options, Outcome, Shard, claim, run};
pub use summary::{Difference, Reranked, Spread, Summary, SummaryRow};
pub use text::experiment_text;
pub use trial::{Data, TrialResult};
