//! Keeps what a panic hook sees of a user function's panic, so that the failure can show it. Panics of other threads
//! are left to the hook that was there before.

use std::{backtrace::Backtrace, cell::RefCell, panic, sync::Once};

use crate::flow::PanicFacts;

thread_local! {
    /// `Some` on threads that run tasks: what the last panic looked like.
    static FACTS: RefCell<Option<Option<PanicFacts>>> = const { RefCell::new(None) };
}

/// Prepares the calling thread, and the process's hook if this is the first one.
pub fn watch_this_thread() {
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
    FACTS.set(Some(None));
}

/// What the last panic on this thread looked like; once.
pub fn take_facts() -> Option<PanicFacts> {
    FACTS.with_borrow_mut(|facts| facts.as_mut().and_then(Option::take))
}
