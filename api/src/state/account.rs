//! How much memory keyed state takes, and how much it may: a slot's account, which its operators charge as their tables
//! grow.
//!
//! ```text
//!  Table, Timers ──charge, release──► StateAccount (an operator's; plain cells) ──in pieces──► SlotAccount (a slot's)
//! ```
//! Charged is what the allocator is asked for: tables as they grow, and what keys and values hold on the heap as they
//! change. Looking at a value costs nothing, and neither does a change of one that holds nothing on the heap.
//!
//! **Invariant:** what is taken from a slot's account is the sum of what its operators have reserved, and each has reserved
//! at least what it uses.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use millstream_model::{
    config::{MANAGED_MEMORY, MANAGED_MEMORY_FRACTION, PROCESS_MEMORY},
    fault::Failure,
};

use crate::flow;

/// What an operator takes from its slot's account at once, where there is so much.
const PIECE_BYTES: u64 = 64 << 10;

/// What the state of one slot takes. Tasks of a slot may have threads of their own, so it is shared; they come here once per
/// piece.
#[derive(Debug)]
pub struct SlotAccount {
    limit_bytes: u64,
    reserved_bytes: AtomicU64,
}

impl SlotAccount {
    pub fn new(limit_bytes: u64) -> SlotAccount {
        SlotAccount { limit_bytes, reserved_bytes: AtomicU64::new(0) }
    }

    /// For state that nobody limits.
    pub fn unlimited() -> SlotAccount {
        SlotAccount::new(u64::MAX)
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// What the state of the slot takes, up to a piece for each of its operators.
    pub fn used_bytes(&self) -> u64 {
        self.reserved_bytes.load(Relaxed)
    }

    /// Whether there was so much.
    fn reserve(&self, bytes: u64) -> bool {
        let within = |reserved: u64| reserved.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes);
        self.reserved_bytes.fetch_update(Relaxed, Relaxed, within).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.reserved_bytes.fetch_sub(bytes, Relaxed);
    }
}

/// What the state of one operator takes of its slot's account. Clones share it; what it has reserved goes back with the last.
#[derive(Clone, Debug)]
pub struct StateAccount(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    slot: Arc<SlotAccount>,
    operator: Rc<str>,
    used: Cell<u64>,
    /// Invariant: at least `used`.
    reserved: Cell<u64>,
}

impl StateAccount {
    pub fn new(slot: Arc<SlotAccount>, operator: Rc<str>) -> StateAccount {
        StateAccount(Rc::new(Inner { slot, operator, used: Cell::new(0), reserved: Cell::new(0) }))
    }

    /// For state that nobody limits.
    pub fn unlimited() -> StateAccount {
        StateAccount::new(Arc::new(SlotAccount::unlimited()), "".into())
    }

    pub fn used_bytes(&self) -> u64 {
        self.0.used.get()
    }

    /// The state takes so many bytes more. If its slot has none left for it, the record fails, and with it the job: see
    /// [`flow::fail`].
    #[inline]
    pub fn charge(&self, bytes: usize) {
        let used = self.0.used.get() + bytes as u64;
        self.0.used.set(used);
        if used > self.0.reserved.get() {
            self.0.reserve_more();
        }
    }

    /// The state takes so many bytes less.
    #[inline]
    pub fn release(&self, bytes: usize) {
        // After a failure a function is closed still, and may release what was not had.
        let used = self.0.used.get().saturating_sub(bytes as u64);
        self.0.used.set(used);
        // With a piece to spare, so that state which grows and shrinks by little comes here seldom.
        if self.0.reserved.get() - used > 2 * PIECE_BYTES {
            self.0.give_back();
        }
    }

    /// What took `before` takes `after` now.
    #[inline]
    pub fn change(&self, before: usize, after: usize) {
        match after.checked_sub(before) {
            Some(0) => {}
            Some(more) => self.charge(more),
            None => self.release(before - after),
        }
    }
}

impl Inner {
    #[cold]
    fn reserve_more(&self) {
        let missing = self.used.get() - self.reserved.get();
        for bytes in [missing.max(PIECE_BYTES), missing] {
            if self.slot.reserve(bytes) {
                self.reserved.set(self.reserved.get() + bytes);
                return;
            }
        }
        let used = self.used.get();
        // It was not had, whatever was allocated for it.
        self.used.set(self.reserved.get());
        flow::fail(self.exceeded(used, missing));
    }

    fn exceeded(&self, used: u64, missing: u64) -> Failure {
        let of_slot = self.slot.used_bytes() + missing;
        let failure = Failure::fatal(format!(
            "the keyed state in its slot needs {of_slot} bytes, {used} of them for this operator, and a slot has {} bytes \
             for it: raise {}, {} or {}, or spread the job over more slots or TaskManagers",
            self.slot.limit_bytes,
            MANAGED_MEMORY.name(),
            MANAGED_MEMORY_FRACTION.name(),
            PROCESS_MEMORY.name(),
        ));
        failure.in_operator(&self.operator)
    }

    #[cold]
    fn give_back(&self) {
        let surplus = self.reserved.get() - self.used.get() - PIECE_BYTES;
        self.reserved.set(self.reserved.get() - surplus);
        self.slot.give_back(surplus);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.slot.give_back(self.reserved.get());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use millstream_model::fault::Remedy;

    use super::*;

    fn failure_of(charge: impl FnOnce()) -> Failure {
        let payload = catch_unwind(AssertUnwindSafe(charge)).expect_err("there is no room for it");
        flow::failure_of_panic(payload, None)
    }

    #[test]
    fn the_operator_that_wants_more_than_its_slot_has_is_named_with_the_limit_and_the_key() {
        let slot = Arc::new(SlotAccount::new(1_000_000));
        let (one, other) =
            (StateAccount::new(slot.clone(), "one".into()), StateAccount::new(slot.clone(), "other".into()));
        one.charge(600_000);
        other.charge(400_000);
        let failure = failure_of(|| other.charge(1));
        assert_eq!((failure.operator.as_deref(), failure.remedy), (Some("other"), Remedy::FailJob));
        for part in ["1000001 bytes, 400001 of them", "1000000 bytes", "taskmanager.memory.managed.size"] {
            assert!(failure.message.contains(part), "{part}: {failure}");
        }
        assert_eq!(slot.used_bytes(), 1_000_000, "what was not had is not counted");
        other.release(1);
        other.charge(1);
    }

    #[test]
    fn small_changes_do_not_reach_the_slot_and_all_that_was_reserved_goes_back() {
        let slot = Arc::new(SlotAccount::new(10 * PIECE_BYTES));
        let account = StateAccount::new(slot.clone(), "one".into());
        for _ in 0..1000 {
            account.charge(64);
            account.change(64, 65);
            account.change(65, 60);
        }
        assert_eq!((account.used_bytes(), slot.used_bytes()), (60_000, PIECE_BYTES));
        account.release(60_000);
        account.charge(5 * PIECE_BYTES as usize);
        assert_eq!(slot.used_bytes(), 5 * PIECE_BYTES);
        account.release(4 * PIECE_BYTES as usize);
        assert_eq!(slot.used_bytes(), 2 * PIECE_BYTES, "all but a piece to spare");
        let clone = account.clone();
        drop(account);
        assert_ne!(slot.used_bytes(), 0);
        drop(clone);
        assert_eq!(slot.used_bytes(), 0);
    }
}
