//! Memory for decoded images: one budget for all threads, since each alone may need a gigabyte.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes of images that are decoded at a time. One that needs more is decoded alone.
const BUDGET: u64 = 2 << 30;

static FREE: Mutex<u64> = Mutex::new(BUDGET);
static RETURNED: Condvar = Condvar::new();

/// A part of the budget, given back when dropped. A thread takes one at a time, so somebody always goes on.
#[derive(Debug)]
pub struct Share(u64);

impl Share {
    /// Waits until so many bytes are free.
    pub fn take(bytes: u64) -> Share {
        let bytes = bytes.min(BUDGET);
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = RETURNED.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Share(bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *FREE.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        RETURNED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_does_not_fit_waits() {
        let whole = Share::take(u64::MAX);
        let (told, waiting) = channel();
        let other = std::thread::spawn(move || {
            let _share = Share::take(1);
            told.send(()).unwrap();
        });
        assert!(waiting.recv_timeout(Duration::from_millis(50)).is_err());
        drop(whole);
        waiting.recv_timeout(Duration::from_secs(60)).unwrap();
        other.join().unwrap();
    }
}
