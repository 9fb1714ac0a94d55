//! The border to libraries that read foreign bytes, and at some of them panic or go on for ever.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use crate::interrupt;

thread_local! {
    /// Whether a panic of this thread is caught and told in an error instead.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// What a library makes of foreign input, or the message with which it panicked. A panic of our own is
/// never caught here: such a library's panic says that a file is broken, which must end neither a run over thousands of files
/// nor a server; what it worked on is dropped with it, so nothing half-done is seen afterwards.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                others(info);
            }
        }));
    });
    let before = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    CAUGHT.set(before);
    result.map_err(|panic| message(&*panic))
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It panicked with this message, or could not be started.
    Broken(String),
    /// Its time is over. A thread cannot be ended from outside, so this one works on, unheard, until it or the process ends.
    Late,
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for their next job: a call costs a hand-over, not a new thread.
static IDLE: Mutex<Vec<Sender<Job>>> = Mutex::new(Vec::new());

/// As [`caught`], in another thread, which is waited for so many seconds. Those in which this process is stopped do not count.
pub fn within<T: Send + 'static>(seconds: u64, run: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let mut left = seconds;
    let over = || {
        left = left.saturating_sub(1);
        left == 0
    };
    waited_for(Duration::from_secs(1), over, run)
}

/// As [`caught`], in another thread, which is waited for until a signal asks this process to stop.
pub fn until_asked<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    waited_for(Duration::from_millis(50), interrupt::asked, run)
}

/// As [`caught`], in another thread; `over`, asked at each tick, says whether it is waited for no longer.
fn waited_for<T: Send + 'static>(
    tick: Duration,
    mut over: impl FnMut() -> bool,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (done, result) = channel();
    // Who waits for it may have given up.
    let job: Job = Box::new(move || drop(done.send(caught(run))));
    let worker = hand_over(job)?;
    loop {
        match result.recv_timeout(tick) {
            Ok(value) => {
                IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                return value.map_err(Failure::Broken);
            }
            Err(RecvTimeoutError::Timeout) if over() => return Err(Failure::Late),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::Broken("its thread ended".into())),
        }
    }
}

/// Gives a job to a thread that waits, or to a new one, and says how that one hears of the next.
fn hand_over(job: Job) -> Result<Sender<Job>, Failure> {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let job = match idle {
        Some(worker) => match worker.send(job) {
            Ok(()) => return Ok(worker),
            Err(unheard) => unheard.0,
        },
        None => job,
    };
    let (worker, jobs): (_, Receiver<Job>) = channel();
    let started = thread::Builder::new().name("guarded".into()).spawn(move || jobs.into_iter().for_each(|job| job()));
    started.map_err(|e| Failure::Broken(format!("cannot start a thread: {e}")))?;
    worker.send(job).map_err(|_| Failure::Broken("its thread ended".into()))?;
    Ok(worker)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_a_result_stays_one() {
        assert_eq!(caught(|| 3), Ok(3));
        assert_eq!(caught(|| -> () { panic!("{} is broken", "it") }), Err("it is broken".into()));
        assert_eq!(caught(|| caught(|| -> () { panic!("inner") })), Ok(Err("inner".into())));
    }

    #[test]
    fn what_never_ends_is_given_up_and_others_go_on() {
        let never = || -> () {
            loop {
                thread::park();
            }
        };
        assert_eq!(within(1, never), Err(Failure::Late));
        assert_eq!(within(1, || -> u8 { panic!("it is broken") }), Err(Failure::Broken("it is broken".into())));
        assert!((0..100).all(|i| within(60, move || i) == Ok(i)));
    }
}
