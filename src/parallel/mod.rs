//! Ranks that train together: as which of how many a process was started, how they meet, what they do together.
//!
//! A rank is a device with a thread of its own, in one process with others or in a process of its own. Each computes the
//! gradients of its part of every batch; [`Reduce`] adds them up, and all take the same step.

mod by_nccl;
mod fate;
mod greeting;
mod group;
mod launch;
mod link;
mod meeting;
mod peers;
mod reduce;

pub use group::Group;
pub use launch::{Flags, Launcher, Place};
pub use link::{Peer, SILENCE};
pub use meeting::Meeting;
pub use peers::Board;
pub use reduce::{Reduce, reduce};
