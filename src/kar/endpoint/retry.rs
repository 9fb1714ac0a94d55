//! When to call a server again.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

/// Longest wait between two calls. A server that asks for more ends the run, which goes on when it is run again.
pub const LONGEST: Duration = Duration::from_secs(120);

/// A wait that a user should hear of.
const LONG: Duration = Duration::from_secs(4);

/// Waits that double from call to call, by half more or less, so that those who failed together do not return together.
pub struct Backoff {
    first: Duration,
    /// From 0.5 to 1.5.
    spread: f64,
}

impl Backoff {
    /// With this first wait; the name decides how far it deviates.
    pub fn new(first: Duration, name: &str) -> Backoff {
        Backoff { first, spread: 0.5 + (xxh3_64(name.as_bytes()) % 1000) as f64 / 1000.0 }
    }

    /// The wait after this many failed calls before the last one.
    pub fn wait(&self, attempt: u32) -> Duration {
        let seconds = self.first.as_secs_f64() * f64::from(2u32.saturating_pow(attempt)) * self.spread;
        Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64()))
    }
}

/// What a `Retry-After` header asks for: seconds or a date.
pub fn wait_of(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    let wait = match header.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        Ok(_) => return None,
        Err(_) => httpdate::parse_http_date(header).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait)
}

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
    fn waits_double_and_have_an_end() {
        let backoff = Backoff::new(Duration::from_secs(1), "m");
        let waits: Vec<f64> = (0..4).map(|n| backoff.wait(n).as_secs_f64()).collect();
        assert!(waits.windows(2).all(|w| (w[1] / w[0] - 2.0).abs() < 1e-6) && (0.5..1.5).contains(&waits[0]));
        assert_eq!(backoff.wait(u32::MAX), LONGEST);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(wait_of(" 3 ", now), Some(Duration::from_secs(3)));
        assert_eq!(wait_of("0.25", now), Some(Duration::from_millis(250)));
        assert_eq!(wait_of("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(wait_of("Sun, 06 Nov 1994 08:49:07 GMT", now), Some(Duration::ZERO));
        assert_eq!(wait_of("1e300", now), Some(Duration::MAX));
        assert_eq!([wait_of("-1", now), wait_of("soon", now), wait_of("NaN", now)], [None; 3]);
    }

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
