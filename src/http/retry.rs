//! When to call a server again.

use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

/// Longest wait between two calls. A server that asks for more ends the run, which goes on when it is run again.
pub const LONGEST: Duration = Duration::from_secs(120);

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
}
