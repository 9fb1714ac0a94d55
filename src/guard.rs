//! The border to libraries that read foreign bytes and panic at some of them.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

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
}
