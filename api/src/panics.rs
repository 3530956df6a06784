//! Keeps what a panic hook sees of a user function's panic, so that the failure can show it. Panics of other threads
//! are left to the hook that was there before.

use std::{
    backtrace::Backtrace,
    cell::RefCell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use millstream_model::fault::Failure;

use crate::flow::{self, PanicFacts};

thread_local! {
    /// `Some` on threads that run tasks, and on others during `catch`: what the last panic looked like.
    static FACTS: RefCell<Option<Option<PanicFacts>>> = const { RefCell::new(None) };
}

/// Prepares the calling thread, and the process's hook if this is the first one.
pub fn watch_this_thread() {
    prepare_hook();
    FACTS.set(Some(None));
}

fn prepare_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let watched = FACTS.with_borrow_mut(|facts| match facts {
                Some(last) => {
                    let location = info.location().map(ToString::to_string);
                    *last = Some(PanicFacts { location, backtrace: Some(Backtrace::force_capture().to_string()) });
                    true
                }
                None => false,
            });
            if !watched {
                before(info);
            }
        }));
    });
}

/// Runs user code on a thread that is not the user's alone; its panic becomes a failure, as on a slot's thread.
///
/// # Errors
/// If it panics.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Failure> {
    prepare_hook();
    let outside = FACTS.replace(Some(None));
    let caught = catch_unwind(AssertUnwindSafe(run));
    let facts = FACTS.replace(outside).flatten();
    caught.map_err(|payload| flow::failure_of_panic(payload, facts))
}

/// What the last panic on this thread looked like; once.
pub fn take_facts() -> Option<PanicFacts> {
    FACTS.with_borrow_mut(|facts| facts.as_mut().and_then(Option::take))
}
