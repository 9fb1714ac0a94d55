//! KAR, knowledge-aware re-ranking (section 3.4 of the paper): a language model reads a mention and the K best
//! candidates of any ranking and says which one fits, or their order.

pub mod answer;
mod debias;
pub mod endpoint;
mod gate;
mod instruction;
mod journal;
mod letters;
pub mod llama;
mod mention;
pub mod model;
mod report;
mod rerank;
mod run_file;
mod types;
mod words;

pub use debias::Prior;
pub use instruction::{Budget, MOST_OPTIONS, Prompt, Strategy, Template};
pub use journal::{Header, Journal};
pub use report::{RankChanges, Report, Unanswered};
pub use rerank::{instructions, rerank};
pub use run_file::write_run;
pub use types::{LEAST_SHARE, Outcome, Reranked, Scoring, Settings, Spent, Verdict};
pub use words::excerpt;
