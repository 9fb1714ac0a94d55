//! Experiments: many trainings, evaluations and re-rankings that one table compares (section 4 of the paper).
//!
//! A file ([`ExperimentFile`]) says which rows the table has. A [`Plan`] makes trials of them, [`run`] trains and evaluates
//! what is not there yet, and a [`Summary`] is the table.

mod claim;
mod datasets;
mod differences;
mod examples;
mod file;
mod plan;
mod question;
mod rerank;
mod run;
mod summary;
mod text;
mod trial;

pub use claim::{claim, claim_for_several};
pub use datasets::{Average, DatasetSource, DatasetsSummary, OneDataset, expect_one_protocol, wrong_datasets};
pub use differences::Difference;
pub use examples::{Example, Ranked};
pub use file::{BUILT_IN, ExperimentFile, Row};
pub use plan::{Plan, PlannedRow, Trial};
pub use question::{Asked, Question, Unopened, answered, ask, expect_own, is_answered};
pub use rerank::{Answer, Reranked, Rerankings};
pub use run::{Options, Outcome, run, standing};
pub use summary::{Spread, Summary, SummaryRow};
pub use text::experiment_text;
pub use trial::{Data, TrialResult};
