//! A job whose JobMaster is in this process: a client's view of it, and what is kept for as long as it runs.

use std::{convert::Infallible, thread};

use crossbeam_channel::{Receiver, bounded};
use millstream_api::job::{FinishedJob, JobProgress, RunningJob};
use millstream_controlplane::{JobHandle, JobMaster, JobMasterConfig, JobOutcome};
use millstream_model::{fault::Failure, id::JobVertexId, state::JobStatus};

/// A client's view of a job. The job itself goes on without it.
pub struct EmbeddedJob {
    handle: JobHandle,
    sources: Vec<JobVertexId>,
    /// Disconnected when all that was held for the job is gone.
    released: Receiver<Infallible>,
}

impl EmbeddedJob {
    /// Starts a JobMaster. `held` is what the job needs beside it, such as its workers: it is dropped when the job has
    /// ended, whether or not anybody still has a client for it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(config: JobMasterConfig, held: impl Send + 'static) -> Result<EmbeddedJob, Failure> {
        let sources = config.graph.sources().collect();
        let handle = JobMaster::start(config);
        let (holds, released) = bounded(0);
        let job = handle.clone();
        let keep = move || {
            job.wait();
            drop(held);
            drop(holds);
        };
        let thread = thread::Builder::new().name("job-keeper".to_owned()).spawn(keep);
        thread.map_err(|cause| Failure::new(format!("no thread to keep the job could be started: {cause}")))?;
        Ok(EmbeddedJob { handle, sources, released })
    }
}

impl RunningJob for EmbeddedJob {
    fn status(&self) -> JobStatus {
        self.handle.status()
    }

    fn cancel(&self) {
        self.handle.cancel();
    }

    fn wait(&self) -> FinishedJob {
        let outcome = self.handle.wait();
        // What functions do when they are dropped has been done when the program goes on. Not after a failure: a task
        // that is stuck in a function may be the reason, and would never end.
        if outcome.status != JobStatus::Failed {
            let _ = self.released.recv();
        }
        finished(outcome)
    }

    fn progress(&self) -> JobProgress {
        let metrics = self.handle.metrics();
        JobProgress { records_read: metrics.records_read(&self.sources), checkpoints: metrics.checkpoints.completed }
    }
}

/// What a program is told of a job that has ended.
pub fn finished(outcome: JobOutcome) -> FinishedJob {
    FinishedJob {
        status: outcome.status,
        failure: outcome.failure,
        runtime: outcome.timings.net_runtime,
        restarts: outcome.timings.restarts.into(),
        checkpoints: outcome.timings.checkpoints.completed,
        accumulators: outcome.accumulators,
        collected: outcome.collected,
    }
}
