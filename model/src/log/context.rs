//! Which task the current thread works for: whoever logs is asked nothing, and the line says it all the same.
//!
//! A slot's thread enters a task's context for each step, which handles up to a thousand records: two counters and a
//! place of the thread are written, and records cost nothing.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use super::LogTask;

thread_local! {
    static CURRENT: RefCell<Option<Arc<LogTask>>> = const { RefCell::new(None) };
    /// Whether there is one. Unlike the other it can be looked at whatever the thread is in the middle of: it needs no
    /// code to be made or dropped.
    static IS_ANY: Cell<bool> = const { Cell::new(false) };
}

/// Until this is dropped, the thread works for a task; then for what it worked for before.
#[derive(Debug)]
#[must_use]
pub struct Entered {
    before: Option<Arc<LogTask>>,
}

/// Lets what is logged on this thread belong to a task.
pub fn enter(task: &Arc<LogTask>) -> Entered {
    let task = Some(task.clone());
    // A thread that ends has no place any more, and logs for nobody.
    let before = CURRENT.try_with(|current| current.replace(task)).unwrap_or_default();
    IS_ANY.set(true);
    Entered { before }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        IS_ANY.set(before.is_some());
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

/// The task that this thread works for.
pub fn current() -> Option<Arc<LogTask>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Shows the task that this thread works for, if there is one. For handlers of signals: it allocates nothing, and a thread
/// that was interrupted while it changed its context has none.
pub fn with_current<R>(show: impl FnOnce(&LogTask) -> R) -> Option<R> {
    if !IS_ANY.get() {
        return None;
    }
    let shown = CURRENT.try_with(|current| current.try_borrow().ok()?.as_deref().map(show));
    shown.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> Arc<LogTask> {
        Arc::new(LogTask { vertex: "0".repeat(32), name: name.to_owned(), subtask: 0, parallelism: 1, attempt: 0 })
    }

    #[test]
    fn a_context_ends_where_it_began_also_by_a_panic() {
        let name = || current().map(|task| task.name.clone());
        assert_eq!(name(), None);
        let outer = enter(&task("outer"));
        let caught = std::panic::catch_unwind(|| {
            let _inner = enter(&task("inner"));
            assert_eq!(name().as_deref(), Some("inner"));
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(caught.is_err());
        assert_eq!(name().as_deref(), Some("outer"));
        assert_eq!(with_current(|task| task.name.clone()).as_deref(), Some("outer"));
        drop(outer);
        assert_eq!(name(), None);
        assert_eq!(with_current(|_| ()), None);
    }
}
