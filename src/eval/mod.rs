//! Judging a model: ranks and metrics, and replaying the reference's draws.

pub mod replay;
