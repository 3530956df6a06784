//! What restarts after a failure, and whether it may.
//!
//! A region is what records flow through without being stored, so its tasks restart together, and no others (Flink's
//! `RestartPipelinedRegionFailoverStrategy`), unless `jobmanager.execution.failover-strategy` is `full`.
//!
//! One failure of a task or a worker counts once for the restart strategy, however many regions it touches. (In Flink each
//! task of a lost TaskManager counts, which the default strategy, exponential-delay, makes one again; it does here, too.)

mod backoff;

use std::{collections::BTreeSet, time::Duration};

use millstream_model::{
    config::{self, BadValue, FailoverStrategy},
    fault::{Failure, Remedy},
    job_graph::JobGraph,
};

pub use backoff::{Pause, RestartBackoff};

use crate::{
    clock::Moment,
    regions::{RegionIndex, Regions},
};

/// The decider: the restart strategy, and how far a restart reaches.
#[derive(Debug)]
pub struct Failover {
    strategy: FailoverStrategy,
    all: BTreeSet<RegionIndex>,
    backoff: RestartBackoff,
}

/// What a failure leads to.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Stop the tasks of these regions, wait this long, and deploy them again from the latest checkpoint.
    Restart {
        regions: BTreeSet<RegionIndex>,
        after: Duration,
        /// Whether it counts as a restart of its own. One that came while others waited for theirs does not.
        is_new: bool,
    },
    /// The job has failed, with this as its failure.
    Fail { failure: Failure },
}

impl Failover {
    pub fn new(graph: &JobGraph, regions: &Regions) -> Result<Failover, BadValue> {
        Ok(Failover {
            strategy: graph.configuration.get(&config::FAILOVER_STRATEGY)?,
            all: regions.all().collect(),
            backoff: RestartBackoff::from_configuration(&graph.configuration)?,
        })
    }

    /// Decides after a failure that has touched these regions. `random` is in 0..1.
    pub fn on_failure(
        &mut self,
        touched: BTreeSet<RegionIndex>,
        failure: Failure,
        now: Moment,
        random: f64,
    ) -> Verdict {
        if failure.remedy == Remedy::FailJob {
            return Verdict::Fail { failure };
        }
        let regions = match self.strategy {
            FailoverStrategy::Region => touched,
            FailoverStrategy::Full => self.all.clone(),
        };
        match self.backoff.on_failure(now, random) {
            Ok(Pause { length, is_new }) => Verdict::Restart { regions, after: length, is_new },
            Err(exhausted) => {
                let message = format!("{} (not restarted: {exhausted})", failure.message);
                Verdict::Fail { failure: Failure { message, ..failure } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::config::RestartStrategy;

    use super::*;
    use crate::job_master::fixture::{graph, vertex};

    const NOW: Moment = Moment(Duration::from_secs(1000));

    fn failover(strategy: RestartStrategy, reach: FailoverStrategy) -> Failover {
        let mut graph = graph(&[vertex(1, 1), vertex(2, 1), vertex(3, 1)], &[(0, 2)]);
        graph.configuration.set(&config::RESTART_STRATEGY, Some(strategy));
        graph.configuration.set(&config::FAILOVER_STRATEGY, reach);
        Failover::new(&graph, &Regions::of(&graph)).unwrap()
    }

    fn touched(region: usize) -> BTreeSet<RegionIndex> {
        BTreeSet::from([RegionIndex(region)])
    }

    #[test]
    fn a_failure_restarts_what_it_touches_and_with_the_strategy_full_all() {
        for (reach, regions) in [(FailoverStrategy::Region, vec![1]), (FailoverStrategy::Full, vec![0, 1])] {
            let mut failover = failover(RestartStrategy::FixedDelay, reach);
            let verdict = failover.on_failure(touched(1), Failure::new("lost"), NOW, 0.0);
            let regions = regions.into_iter().map(RegionIndex).collect();
            assert_eq!(verdict, Verdict::Restart { regions, after: Duration::from_secs(1), is_new: true });
        }
    }

    #[test]
    fn what_no_restart_can_mend_fails_the_job_at_once() {
        let mut failover = failover(RestartStrategy::ExponentialDelay, FailoverStrategy::Region);
        let failure = Failure::fatal("the program is wrong").in_operator("map").at("line 3");
        let verdict = failover.on_failure(touched(0), failure.clone(), NOW, 0.0);
        assert_eq!(verdict, Verdict::Fail { failure });
    }

    #[test]
    fn the_failure_that_ends_a_job_keeps_its_operator_and_position() {
        let mut failover = failover(RestartStrategy::None, FailoverStrategy::Region);
        let failure = Failure::new("cannot parse").in_operator("map").at("line 3");
        let Verdict::Fail { failure } = failover.on_failure(touched(0), failure, NOW, 0.0) else {
            panic!("it was restarted");
        };
        assert_eq!((failure.operator.as_deref(), failure.position.as_deref()), (Some("map"), Some("line 3")));
        assert!(failure.message.starts_with("cannot parse (not restarted:"), "{}", failure.message);
    }
}
