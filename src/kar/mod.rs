//! KAR, knowledge-aware re-ranking (section 3.4 of the paper): a language model reads a mention and the K best
//! candidates of any ranking and says which one fits, or their order.

pub mod answer;
mod debias;
pub mod endpoint;
mod fuse;
mod gain;
mod gate;
mod instruction;
mod journal;
mod letters;
pub mod llama;
mod mention;
pub mod model;
mod order;
mod report;
mod rerank;
mod run_file;
mod types;
mod words;

pub use debias::{Prior, Sample};
pub use fuse::{FOLDS, Fusion, Weights};
pub use gain::{Gain, LEAST_MENTIONS};
pub use instruction::{Budget, MOST_OPTIONS, Prompt, Strategy, Template};
pub use journal::{Header, Journal};
pub use order::Order;
pub use report::{AtLetter, Fate, RankChanges, Report, Unanswered};
pub use rerank::{expect_alike, fit_weights, instructions, rerank, rerank_share, sample};
pub use run_file::write_run;
pub use types::{Choice, LEAST_SHARE, Outcome, Reranked, Scoring, Settings, Spent, Verdict};
