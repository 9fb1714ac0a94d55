//! Memory for images and their files: budgets for all threads together, since each alone may need a gigabyte.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that all threads may hold at a time. One that needs more waits until it is alone.
#[derive(Debug)]
pub struct Budget {
    most: u64,
    free: Mutex<u64>,
    returned: Condvar,
}

/// For files' bytes. Who waits for pixels holds some, but who holds pixels waits for nothing, so somebody always goes on.
pub static FILES: Budget = Budget::new(2_000_000_000);

/// For decoded images.
pub static PIXELS: Budget = Budget::new(2_000_000_000);

/// A part of a budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: &'static Budget,
    bytes: u64,
}

impl Budget {
    const fn new(most: u64) -> Budget {
        Budget { most, free: Mutex::new(most), returned: Condvar::new() }
    }

    /// Waits until so many bytes are free.
    pub fn take(&'static self, bytes: u64) -> Share {
        let bytes = bytes.min(self.most);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.returned.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Share { budget: self, bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::super::read_image;
    use super::*;

    /// Wants work to begin only when a share is given back.
    fn waits(whole: Share, work: impl FnOnce() + Send + 'static) {
        let (told, waiting) = channel();
        let other = std::thread::spawn(move || {
            work();
            told.send(()).unwrap();
        });
        assert!(waiting.recv_timeout(Duration::from_millis(50)).is_err());
        drop(whole);
        waiting.recv_timeout(Duration::from_secs(60)).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn who_does_not_fit_waits() {
        static BUDGET: Budget = Budget::new(100);
        waits(BUDGET.take(u64::MAX), || drop(BUDGET.take(1)));
    }

    #[test]
    fn a_file_is_read_when_there_is_room_for_its_bytes_and_decoded_when_for_its_pixels() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clip/image.png");
        for budget in [&FILES, &PIXELS] {
            let path = path.clone();
            waits(budget.take(u64::MAX), move || drop(read_image(&path).unwrap()));
        }
    }
}
