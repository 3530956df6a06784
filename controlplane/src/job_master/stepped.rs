//! A JobMaster that somebody else drives: without a thread, with the time and the randomness that it is given. The
//! simulation runs jobs so; what it decides is what a JobMaster on a thread decides.

use std::fmt;

use crossbeam_channel::Sender;
use millstream_model::{
    id::WorkerId,
    message::{FromWorker, Report},
    state::JobStatus,
};

use super::{
    AdoptionConfig, Jitter, JobHandle, JobMaster, JobMasterConfig, JobOutcome, WorkerLink,
    event::Event,
    handle::{HandleSide, Request},
    phase::Phase,
};
use crate::{clock::Moment, execution_graph::ExecutionGraph};

/// A job, one event at a time.
pub struct SteppedJobMaster {
    /// `None` if it ended before it began.
    master: Option<JobMaster>,
    handle: JobHandle,
    /// Nobody is to be told that it has ended while it is there.
    _alive: Sender<std::convert::Infallible>,
}

impl fmt::Debug for SteppedJobMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteppedJobMaster").field("job", &self.handle.job()).finish_non_exhaustive()
    }
}

impl SteppedJobMaster {
    /// Begins the job, with the workers that `config` has. Its channels are not listened to: events come by the methods.
    /// `jitter` gives numbers in 0..1.
    pub fn begin(config: JobMasterConfig, jitter: Jitter, now: Moment) -> SteppedJobMaster {
        SteppedJobMaster::launch(config, None, jitter, now)
    }

    /// The same for a job that an earlier leader may have left running. `adoption.decided` may be called before this
    /// returns, or in any later event.
    pub fn take_up(config: JobMasterConfig, adoption: AdoptionConfig, jitter: Jitter, now: Moment) -> SteppedJobMaster {
        SteppedJobMaster::launch(config, Some(adoption), jitter, now)
    }

    fn launch(
        config: JobMasterConfig,
        adoption: Option<AdoptionConfig>,
        jitter: Jitter,
        now: Moment,
    ) -> SteppedJobMaster {
        let job = config.graph.job_id;
        let (handle, HandleSide { view, alive, .. }) = JobHandle::new(job);
        let master = match JobMaster::prepare(config, view.clone(), jitter, now) {
            Ok(master) => {
                let mut master = JobMaster { adoption, ..master };
                master.begin(now);
                Some(master)
            }
            Err(setback) => {
                view.end(setback.outcome_of(job));
                None
            }
        };
        SteppedJobMaster { master, handle, _alive: alive }
    }

    /// A worker has reported something.
    pub fn on_report(&mut self, worker: WorkerId, report: Report, now: Moment) {
        self.on_event(Event::Report(FromWorker { worker, report }), now);
    }

    /// A worker has joined.
    pub fn on_joined(&mut self, link: Box<dyn WorkerLink>, now: Moment) {
        self.on_event(Event::Joined(link), now);
    }

    /// A client wants the job to end.
    pub fn on_cancel(&mut self, now: Moment) {
        self.on_event(Event::Request(Request::Cancel), now);
    }

    /// Time has passed. To be called at [`next_deadline`](Self::next_deadline), and harmless at any other time.
    pub fn on_time(&mut self, now: Moment) {
        self.on_event(Event::Timer, now);
    }

    /// When something is to be done without any event.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.running().and_then(JobMaster::next_deadline)
    }

    pub fn status(&self) -> JobStatus {
        self.handle.status()
    }

    /// How the job ended, if it has for this JobMaster.
    pub fn outcome(&self) -> Option<JobOutcome> {
        self.handle.outcome()
    }

    /// What it knows of the job's tasks; `None` if it ended before it began.
    pub fn execution(&self) -> Option<&ExecutionGraph> {
        self.master.as_ref().map(|master| &master.execution)
    }

    fn on_event(&mut self, event: Event, now: Moment) {
        if let Some(master) = self.master.as_mut().filter(|master| !matches!(master.phase, Phase::Ended)) {
            master.handle(event, now);
        }
    }

    fn running(&self) -> Option<&JobMaster> {
        self.master.as_ref().filter(|master| !matches!(master.phase, Phase::Ended))
    }
}
