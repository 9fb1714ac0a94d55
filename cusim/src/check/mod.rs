//! The sanitizer: what a correct program never does, and how it is reported.

pub mod block;
mod copies;
mod early;
mod global;
mod log;
mod meetings;
mod part;
mod race;
mod replay;
pub mod report;
mod shared;
pub mod stamp;
mod sync;
pub mod watch;

/// Which checks are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Reads of memory that nothing wrote.
    pub init: bool,
    /// Races between threads.
    pub race: bool,
    /// Misuse of barriers and warp instructions.
    pub sync: bool,
}

impl Checks {
    /// All of them.
    pub const ALL: Self = Self { init: true, race: true, sync: true };

    /// Whether any is on.
    pub fn any(self) -> bool {
        self.init || self.race || self.sync
    }
}
