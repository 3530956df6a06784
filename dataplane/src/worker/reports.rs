//! What the JobMaster is told: which tasks there are, what they have done, and what the worker takes.

use millstream_model::{
    deployment::{Deployment, Placement},
    id::ExecutionAttemptId,
    job_graph::JobGraph,
    message::{Report, TaskName, TaskStatus},
    state::ExecutionState,
};

use super::{Control, region::RunningRegion};
use crate::clock;

impl Control {
    /// What a new leader adopts, or does not. It has spoken with its own epoch, so that from here on nobody hears the old
    /// one.
    pub(super) fn report_status(&self) {
        let regions = self.regions.values();
        let placements = regions.flat_map(|region| region.placements.iter().map(move |own| (region, own)));
        self.reporter.send_status(|last| {
            let status = |(region, placement): (&RunningRegion, &Placement)| {
                let attempt = ExecutionAttemptId { subtask: placement.subtask, generation: region.generation };
                let last = last.get(&attempt);
                let state = last.map_or(ExecutionState::Deploying, |last| last.state);
                let is_leaving = region.is_ending && !state.is_terminal();
                TaskStatus {
                    attempt,
                    slot: placement.slot,
                    state: if is_leaving { ExecutionState::Canceling } else { state },
                    end_of_data: last.is_some_and(|last| last.end_of_data),
                }
            };
            Report::Status { tasks: placements.map(status).collect() }
        });
    }

    pub(super) fn report_names(&self, graph: &JobGraph, deployment: &Deployment) {
        let name_of = |placement: &Placement| {
            let Placement { subtask, .. } = *placement;
            let vertex = &graph.vertices[graph.vertex_index(subtask.vertex)?];
            let attempt = ExecutionAttemptId { subtask, generation: deployment.generation };
            Some(TaskName { attempt, attempt_number: deployment.attempt, name: vertex.name.clone() })
        };
        let tasks = self.own(deployment).filter_map(name_of).collect();
        self.reporter.send(Report::Deployed { job_name: graph.name.clone(), tasks });
    }

    pub(super) fn report_metrics(&self) {
        self.report_tasks(self.regions.values());
        self.report_memory_and_shuffle();
    }

    pub(super) fn report_memory_and_shuffle(&self) {
        if !self.regions.is_empty() {
            self.reporter.send(Report::Memory { memory: self.memory.metrics() });
        }
        let peers = self.exchange.as_ref().map(|(exchange, _)| exchange.metrics()).unwrap_or_default();
        if !peers.is_empty() {
            self.reporter.send(Report::Shuffle { peers });
        }
    }

    pub(super) fn report_tasks<'a>(&self, regions: impl Iterator<Item = &'a RunningRegion> + Clone) {
        let now = clock::now();
        let all = regions.flat_map(|region| &region.counters);
        let tasks: Vec<_> = all.clone().map(|(attempt, counters, _)| (*attempt, counters.report(now))).collect();
        if !tasks.is_empty() {
            self.reporter.send(Report::Metrics { tasks });
        }
        let tasks = all.map(|(attempt, _, metrics)| (*attempt, metrics.report()));
        let tasks: Vec<_> = tasks.filter(|(_, metrics)| !metrics.is_empty()).collect();
        if !tasks.is_empty() {
            self.reporter.send(Report::OperatorMetrics { tasks });
        }
    }
}
