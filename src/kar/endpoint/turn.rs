//! Whose turn it is to ask a server, and when.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A wait that a user should hear of.
const LONG: Duration = Duration::from_secs(4);

/// Whose turn it is: the next question, and when anything may be asked at all.
#[derive(Default)]
pub struct Turn {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    next: usize,
    stop: bool,
    not_before: Option<Instant>,
    /// When the last wait that was told ends.
    told: Option<Instant>,
}

impl Turn {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that change it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next of so many questions, unless there is none or all work has ended.
    pub fn next(&self, questions: usize) -> Option<usize> {
        let mut state = self.state();
        let next = Some(state.next).filter(|&next| next < questions && !state.stop);
        state.next += 1;
        next
    }

    /// Ends all work.
    pub fn stop(&self) {
        self.state().stop = true;
        self.stopped.notify_all();
    }

    /// Lets nobody ask for a while.
    pub fn hold_all(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.state();
        state.not_before = Some(state.not_before.map_or(until, |earlier| earlier.max(until)));
    }

    /// Whether the user should hear of this wait: it is long, and none that was told is under way.
    pub fn is_news(&self, wait: Duration) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let news = wait >= LONG && state.told.is_none_or(|end| end <= now);
        if news {
            state.told = Some(now + wait);
        }
        news
    }

    /// Waits until asking is allowed; false if all work has ended.
    pub fn wait(&self) -> bool {
        loop {
            let now = Instant::now();
            let state = self.state();
            let wait = state.not_before.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
            if state.stop || wait.is_zero() {
                return !state.stop;
            }
            drop(state);
            self.sleep(wait);
        }
    }

    /// Sleeps, unless all work ends before; false if it has ended.
    pub fn sleep(&self, wait: Duration) -> bool {
        let asleep = self.stopped.wait_timeout_while(self.state(), wait, |state| !state.stop);
        !asleep.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_is_told_once() {
        let turn = Turn::default();
        let news = [2, 10, 10].map(|seconds| turn.is_news(Duration::from_secs(seconds)));
        assert_eq!(news, [false, true, false]);
    }

    #[test]
    fn a_stop_wakes_those_who_wait() {
        let turn = Turn::default();
        turn.hold_all(Duration::from_secs(60));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| turn.wait());
            turn.stop();
            assert!(!waiting.join().unwrap());
        });
        assert_eq!(turn.next(5), None);
    }
}
