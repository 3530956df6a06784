//! What restarts after a failure, and whether it may.
//!
//! A region is what records flow through without being stored, so its tasks restart together (Flink's
//! `RestartPipelinedRegionFailoverStrategy`). The JobMaster of today deploys the whole job at one generation and so
//! restarts all of its regions; the answer here already names the region alone.

mod backoff;

use std::time::Duration;

use millstream_model::{
    config::BadValue,
    fault::{Failure, Remedy},
    id::JobVertexId,
    job_graph::JobGraph,
};

pub use backoff::RestartBackoff;

use crate::clock::Moment;

/// The decider: regions, and the restart strategy.
#[derive(Debug)]
pub struct Failover {
    regions: Vec<Vec<JobVertexId>>,
    backoff: RestartBackoff,
}

/// What a failure leads to.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Stop the tasks of these vertices, wait this long, and deploy them again from the latest checkpoint.
    Restart { vertices: Vec<JobVertexId>, after: Duration },
    /// The job has failed, with this as its failure.
    Fail { failure: Failure },
}

impl Failover {
    pub fn new(graph: &JobGraph) -> Result<Failover, BadValue> {
        Ok(Failover { regions: regions(graph), backoff: RestartBackoff::from_configuration(&graph.configuration)? })
    }

    /// The vertices that restart with `vertex`.
    pub fn region_of(&self, vertex: JobVertexId) -> &[JobVertexId] {
        let region = self.regions.iter().find(|region| region.contains(&vertex));
        region.map(Vec::as_slice).unwrap_or_default()
    }

    /// Decides after a failure of `vertex`, or of the whole job if it is `None`. `random` is in 0..1.
    pub fn on_failure(&mut self, vertex: Option<JobVertexId>, failure: Failure, now: Moment, random: f64) -> Verdict {
        if failure.remedy == Remedy::FailJob {
            return Verdict::Fail { failure };
        }
        let vertices = match vertex {
            Some(vertex) => self.region_of(vertex).to_vec(),
            None => self.regions.concat(),
        };
        match self.backoff.on_failure(now, random) {
            Ok(after) => Verdict::Restart { vertices, after },
            Err(exhausted) => {
                let message = format!("{} (not restarted: {exhausted})", failure.message);
                Verdict::Fail { failure: Failure { message, ..failure } }
            }
        }
    }
}

fn regions(graph: &JobGraph) -> Vec<Vec<JobVertexId>> {
    let ids = |region: Vec<usize>| region.into_iter().map(|index| graph.vertices[index].id).collect();
    graph.pipelined_regions().into_iter().map(ids).collect()
}

#[cfg(test)]
mod tests {
    use millstream_model::config::{self, RestartStrategy};

    use super::*;
    use crate::job_master::fixture::{graph, vertex};

    const NOW: Moment = Moment(Duration::from_secs(1000));

    fn failover(strategy: RestartStrategy) -> Failover {
        let mut graph = graph(&[vertex(1, 1), vertex(2, 1), vertex(3, 1)], &[(0, 2)]);
        graph.configuration.set(&config::RESTART_STRATEGY, Some(strategy));
        Failover::new(&graph).unwrap()
    }

    #[test]
    fn a_failure_restarts_its_region_and_no_other() {
        let mut failover = failover(RestartStrategy::FixedDelay);
        let verdict = failover.on_failure(Some(JobVertexId(3)), Failure::new("lost"), NOW, 0.0);
        let vertices = vec![JobVertexId(1), JobVertexId(3)];
        assert_eq!(verdict, Verdict::Restart { vertices, after: Duration::from_secs(1) });
    }

    #[test]
    fn what_no_restart_can_mend_fails_the_job_at_once() {
        let mut failover = failover(RestartStrategy::ExponentialDelay);
        let failure = Failure::fatal("the program is wrong").in_operator("map").at("line 3");
        let verdict = failover.on_failure(Some(JobVertexId(1)), failure.clone(), NOW, 0.0);
        assert_eq!(verdict, Verdict::Fail { failure });
    }

    #[test]
    fn the_failure_that_ends_a_job_keeps_its_operator_and_position() {
        let mut failover = failover(RestartStrategy::None);
        let failure = Failure::new("cannot parse").in_operator("map").at("line 3");
        let Verdict::Fail { failure } = failover.on_failure(Some(JobVertexId(1)), failure, NOW, 0.0) else {
            panic!("it was restarted");
        };
        assert_eq!((failure.operator.as_deref(), failure.position.as_deref()), (Some("map"), Some("line 3")));
        assert!(failure.message.starts_with("cannot parse (not restarted:"), "{}", failure.message);
    }
}
