//! Programs that something happens to while they work.

use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::fissfuse;

/// The program at work, which has written this file by now. Fails if it ended before, or wrote nothing for a minute.
pub fn at_work(args: &[&str], file: &Path) -> Child {
    let mut child = fissfuse(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !file.exists() {
        assert!(child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60), "it wrote nothing");
        sleep(Duration::from_millis(2));
    }
    child
}
