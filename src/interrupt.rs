//! Being asked to stop: the first SIGINT or SIGTERM lets work end where it can go on later, and one that comes later ends at once.
//! Signals that come together are one: a shell and a supervisor that both tell a job, a key that is held.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// How long after the first signal others are taken for the same.
const TOGETHER: Duration = Duration::from_secs(1);

/// How long they are at most while something is put in order before the end.
const TIDYING: Duration = Duration::from_secs(10);

/// Time between two looks at whether something has come.
const LOOK: Duration = Duration::from_millis(20);

use crate::error::{Error, Result};

/// The signal that came, 0 for none. There is one of a process, as there is of its handlers.
static ASKED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Whether signals end the process as they do where nobody watches.
static UNWATCHED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether something is put in order before the end.
static TIDIES: AtomicBool = AtomicBool::new(false);

/// Watches as long as it is held, by work that [`check`]s.
#[derive(Debug)]
#[must_use = "signals are watched for as long as this is held"]
pub struct Watch {
    /// The thread that ends the process, and whether it has to go on waiting for a signal.
    ending: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        UNWATCHED.store(true, Ordering::SeqCst);
        let Some((thread, waits)) = self.ending.take() else { return };
        // The thread is at what has to be done before the end, which this one must not be ahead of.
        if asked() {
            let _ = thread.join();
            end();
        }
        // Whatever comes from here on is not this watch's.
        waits.store(false, Ordering::SeqCst);
    }
}

/// Ends this process as the signal that came does where nobody watches.
fn end() {
    let signal = ASKED.get().map_or(0, |asked| asked.load(Ordering::Relaxed) as i32);
    if low_level::emulate_default_handler(signal).is_err() {
        low_level::exit(128 + signal);
    }
}

/// From now on the first signal is noted for [`check`].
pub fn watch() -> Result<Watch> {
    UNWATCHED.store(false, Ordering::SeqCst);
    if ASKED.get().is_some() {
        return Ok(Watch { ending: None });
    }
    let asked = register().map_err(|e| Error::invalid(format!("cannot watch for signals: {e}")))?;
    ASKED.get_or_init(|| asked);
    Ok(Watch { ending: None })
}

/// Notes signals from here on.
fn register() -> io::Result<Arc<AtomicUsize>> {
    let (again, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (mut first, sender) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the signal that is noted is not the one that ends the process.
        flag::register_conditional_default(signal, UNWATCHED.clone())?;
        flag::register_conditional_shutdown(signal, 128 + signal, again.clone())?;
        flag::register_usize(signal, asked.clone(), signal as usize)?;
        low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    thread::Builder::new().name("first signal".into()).spawn(move || {
        if first.read_exact(&mut [0]).is_err() {
            return;
        }
        thread::sleep(TOGETHER);
        let start = Instant::now();
        while TIDIES.load(Ordering::SeqCst) && start.elapsed() < TIDYING {
            thread::sleep(LOOK);
        }
        again.store(true, Ordering::SeqCst);
    })?;
    Ok(asked)
}

/// As [`watch`], by work that does not check: the first signal ends the process as it does where nobody watches, when
/// `before` is done.
pub fn watch_and_end(before: impl FnOnce() + Send + 'static) -> Result<Watch> {
    let (mut watch, waits) = (watch()?, Arc::new(AtomicBool::new(true)));
    let go_on = waits.clone();
    let waiting = thread::Builder::new().name("signals".into()).spawn(move || {
        while !asked() && go_on.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
        }
        if go_on.load(Ordering::SeqCst) {
            TIDIES.store(true, Ordering::SeqCst);
            before();
            end();
        }
    });
    let thread = waiting.map_err(|e| Error::invalid(format!("cannot watch for signals: {e}")))?;
    watch.ending = Some((thread, waits));
    Ok(watch)
}

/// As [`watch_and_end`] where nobody watches; who does lets work end in order.
pub fn before_the_end(before: impl FnOnce() + Send + 'static) -> Result<Option<Watch>> {
    let watched = ASKED.get().is_some() && !UNWATCHED.load(Ordering::SeqCst);
    if watched { Ok(None) } else { watch_and_end(before).map(Some) }
}

/// Whether a signal asked this process to stop.
pub fn asked() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed) != 0)
}

/// Fails if a signal asked this process to stop; `advice` says what is kept and how to go on.
pub fn check(advice: impl FnOnce() -> String) -> Result<()> {
    match ASKED.get().map(|asked| asked.load(Ordering::Relaxed) as i32) {
        None | Some(0) => Ok(()),
        Some(signal) => Err(Error::Stopped { signal, advice: advice() }),
    }
}
