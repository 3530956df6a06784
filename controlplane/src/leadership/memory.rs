//! Election within one process.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Election, ElectionError, Latch};
use crate::store::MemoryStore;

/// Candidates of one process compete for a [`MemoryStore`].
#[derive(Clone, Debug)]
pub struct MemoryElection {
    store: Arc<MemoryStore>,
    taken: Arc<AtomicBool>,
}

impl MemoryElection {
    pub fn new(store: Arc<MemoryStore>) -> MemoryElection {
        MemoryElection { store, taken: Arc::default() }
    }
}

impl Election for MemoryElection {
    fn try_acquire(&self) -> Result<Option<Latch>, ElectionError> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        Ok(Some(Latch::new(self.store.elect(), Hold(self.taken.clone()))))
    }
}

struct Hold(Arc<AtomicBool>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_leader_at_a_time_and_each_has_a_higher_token() {
        let election = MemoryElection::new(Arc::default());
        let first = election.try_acquire().unwrap().unwrap();
        assert!(election.try_acquire().unwrap().is_none());
        let old = first.epoch();
        drop(first);
        assert!(election.try_acquire().unwrap().unwrap().epoch() > old);
    }
}
