//! The metrics of a JobManager: of the cluster's slots, of each job that runs, and of its own process.

use std::sync::Arc;

use millstream::memory::available_bytes;
use millstream_controlplane::JobMetrics;
use millstream_model::{id::JobId, state::JobStatus};

use super::{
    process::ProcessNumbers,
    scrape::{Collect, Labels, Scrape, and},
};

/// What is known of a cluster at one moment.
#[derive(Debug)]
pub(crate) struct ClusterNumbers {
    pub(crate) task_managers: usize,
    pub(crate) slots: u32,
    pub(crate) free_slots: u32,
    /// Of the jobs that have not ended.
    pub(crate) jobs: Vec<JobNumbers>,
    /// Milliseconds since 1970.
    pub(crate) now_millis: i64,
}

/// What is known of a job.
#[derive(Debug)]
pub(crate) struct JobNumbers {
    pub(crate) id: JobId,
    pub(crate) name: String,
    pub(crate) status: JobStatus,
    pub(crate) metrics: JobMetrics,
}

/// All numbers of a JobManager's process.
pub(crate) struct JobManagerMetrics<A> {
    /// As labels show it.
    pub(crate) host: String,
    pub(crate) ask: A,
}

impl<A: Fn() -> ClusterNumbers + Send + Sync + 'static> Collect for JobManagerMetrics<A> {
    fn collect(&self, scrape: &mut Scrape) {
        let cluster = (self.ask)();
        let own: Labels = Arc::new(vec![("host", self.host.clone())]);
        ProcessNumbers::own().show(&mut scrape.scope("jobmanager", &own), available_bytes());
        let running = cluster.jobs.iter().filter(|job| job.status == JobStatus::Running).count();
        scrape
            .scope("jobmanager", &own)
            .gauge("numRegisteredTaskManagers", cluster.task_managers as f64)
            .gauge("taskSlotsTotal", f64::from(cluster.slots))
            .gauge("taskSlotsAvailable", f64::from(cluster.free_slots))
            .gauge("numRunningJobs", running as f64);
        for job in &cluster.jobs {
            let labels = and(&own, [("job_id", job.id.to_string()), ("job_name", job.name.clone())]);
            job.collect(&labels, cluster.now_millis, scrape);
        }
    }
}

impl JobNumbers {
    fn collect(&self, labels: &Labels, now_millis: i64, scrape: &mut Scrape) {
        let metrics = &self.metrics;
        let in_status = (now_millis - metrics.status_since.unix_millis() as i64).max(0) as f64;
        let time_in = |status| if self.status == status { in_status } else { 0.0 };
        let mut scope = scrape.scope("jobmanager.job", labels);
        scope
            .counter("numRestarts", f64::from(metrics.restarts))
            .counter("fullRestarts", f64::from(metrics.restarts))
            .gauge("uptime", time_in(JobStatus::Running))
            .gauge("initializingTime", time_in(JobStatus::Initializing))
            .gauge("createdTime", time_in(JobStatus::Created))
            .gauge("runningTime", time_in(JobStatus::Running))
            .gauge("restartingTime", time_in(JobStatus::Restarting))
            .gauge("failingTime", time_in(JobStatus::Failing))
            .gauge("cancellingTime", time_in(JobStatus::Cancelling));
        let checkpoints = &metrics.checkpoints;
        scope
            .counter("totalNumberOfCheckpoints", checkpoints.triggered as f64)
            .counter("numberOfCompletedCheckpoints", checkpoints.completed as f64)
            .counter("numberOfFailedCheckpoints", checkpoints.failed as f64)
            .gauge("numberOfInProgressCheckpoints", checkpoints.in_progress as f64);
        if let Some(last) = &checkpoints.last_completed {
            scope
                .gauge("lastCompletedCheckpointId", last.id.0 as f64)
                .gauge("lastCheckpointDuration", last.duration.as_secs_f64() * 1e3)
                .gauge("lastCheckpointSize", last.state_bytes as f64)
                .gauge("lastCheckpointFullSize", last.state_bytes as f64)
                .gauge("lastCheckpointAlignmentTimeMax", last.phases.alignment.duration.as_nanos() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millstream_controlplane::clock::Moment;

    use super::*;

    #[test]
    fn a_job_shows_how_long_it_has_been_in_its_state_and_in_no_other() {
        let metrics =
            JobMetrics { restarts: 2, status_since: Moment(Duration::from_millis(400)), ..Default::default() };
        let job = JobNumbers { id: JobId(1), name: "job".to_owned(), status: JobStatus::Restarting, metrics };
        let ask = move || ClusterNumbers {
            task_managers: 2,
            slots: 8,
            free_slots: 3,
            jobs: vec![JobNumbers { name: job.name.clone(), metrics: job.metrics.clone(), ..job }],
            now_millis: 1_000,
        };
        let mut scrape = Scrape::default();
        JobManagerMetrics { host: "here".to_owned(), ask }.collect(&mut scrape);
        let value = |name: &str| scrape.families[&format!("jobmanager.{name}")].points[0].1;
        assert_eq!((value("taskSlotsTotal"), value("taskSlotsAvailable"), value("numRunningJobs")), (8.0, 3.0, 0.0));
        assert_eq!((value("job.restartingTime"), value("job.uptime"), value("job.numRestarts")), (600.0, 0.0, 2.0));
        assert!(!scrape.families.contains_key("jobmanager.job.lastCheckpointDuration"));
    }
}
