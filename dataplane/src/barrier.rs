//! Aligns the barriers of a task's channels: a pure decider.

use std::time::Instant;

use millstream_api::signal::Barrier;

/// Waits for a barrier on every channel.
#[derive(Debug)]
pub struct BarrierAligner {
    arrived: Vec<bool>,
    current: Option<Alignment>,
    /// The newest checkpoint that was completed here or given up; barriers up to it mean nothing any more.
    settled: u64,
}

#[derive(Debug, Clone, Copy)]
struct Alignment {
    barrier: Barrier,
    missing: usize,
    since: Instant,
}

/// What is to be done about a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aligned {
    /// Nothing: it is late.
    Ignore,
    /// Read this channel no further until the others are there.
    Block,
    /// All are there: snapshot, pass the barrier on, unblock all channels.
    Complete { barrier: Barrier, since: Instant },
    /// A newer checkpoint has begun: unblock all channels but this one, and wait for the new one's barriers.
    Restart,
}

impl BarrierAligner {
    pub fn new(channels: usize) -> Self {
        BarrierAligner { arrived: vec![false; channels], current: None, settled: 0 }
    }

    /// A barrier has come out of `channel`.
    pub fn on_barrier(&mut self, channel: usize, barrier: Barrier, now: Instant) -> Aligned {
        let id = barrier.checkpoint.0;
        if id <= self.settled || self.current.is_some_and(|current| id < current.barrier.checkpoint.0) {
            return Aligned::Ignore;
        }
        let restarted = self.current.is_some_and(|current| id > current.barrier.checkpoint.0);
        if restarted || self.current.is_none() {
            self.arrived.fill(false);
            self.current = Some(Alignment { barrier, missing: self.arrived.len(), since: now });
        }
        let Some(current) = &mut self.current else { return Aligned::Ignore };
        if !std::mem::replace(&mut self.arrived[channel], true) {
            current.missing -= 1;
        }
        if current.missing == 0 {
            let since = current.since;
            self.current = None;
            self.settled = id;
            return Aligned::Complete { barrier, since };
        }
        if restarted { Aligned::Restart } else { Aligned::Block }
    }

    /// The checkpoint will never be complete; whether channels are to be unblocked.
    pub fn on_aborted(&mut self, checkpoint: u64) -> bool {
        self.settled = self.settled.max(checkpoint);
        let current = self.current.is_some_and(|current| current.barrier.checkpoint.0 <= checkpoint);
        if current {
            self.current = None;
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::{id::CheckpointId, message::CheckpointKind};

    use super::*;

    fn barrier(id: u64) -> Barrier {
        Barrier { checkpoint: CheckpointId(id), kind: CheckpointKind::Checkpoint }
    }

    #[test]
    fn a_checkpoint_is_complete_when_every_channel_has_brought_its_barrier() {
        let now = crate::clock::now();
        let mut aligner = BarrierAligner::new(3);
        assert_eq!(aligner.on_barrier(0, barrier(1), now), Aligned::Block);
        assert_eq!(aligner.on_barrier(2, barrier(1), now), Aligned::Block);
        let complete = Aligned::Complete { barrier: barrier(1), since: now };
        assert_eq!(aligner.on_barrier(1, barrier(1), now), complete);
        assert_eq!(aligner.on_barrier(1, barrier(1), now), Aligned::Ignore);
    }

    #[test]
    fn barriers_of_an_abandoned_checkpoint_must_not_complete_it() {
        let now = crate::clock::now();
        let mut aligner = BarrierAligner::new(2);
        assert_eq!(aligner.on_barrier(0, barrier(1), now), Aligned::Block);
        assert!(aligner.on_aborted(1));
        assert_eq!(aligner.on_barrier(1, barrier(1), now), Aligned::Ignore);
        assert_eq!(aligner.on_barrier(0, barrier(2), now), Aligned::Block);
        assert!(!aligner.on_aborted(1));
        assert!(matches!(aligner.on_barrier(1, barrier(2), now), Aligned::Complete { .. }));
    }

    #[test]
    fn a_newer_checkpoint_takes_the_place_of_one_that_is_being_aligned() {
        let now = crate::clock::now();
        let mut aligner = BarrierAligner::new(3);
        assert_eq!(aligner.on_barrier(0, barrier(1), now), Aligned::Block);
        assert_eq!(aligner.on_barrier(1, barrier(2), now), Aligned::Restart);
        assert_eq!(aligner.on_barrier(2, barrier(1), now), Aligned::Ignore);
        assert_eq!(aligner.on_barrier(2, barrier(2), now), Aligned::Block);
        assert!(matches!(aligner.on_barrier(0, barrier(2), now), Aligned::Complete { .. }));
    }
}
