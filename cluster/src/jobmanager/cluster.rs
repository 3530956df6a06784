//! All that a JobManager knows: its jobs, its TaskManagers, and who holds which slots.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::unbounded;
use millstream::{
    leadership::{Leadership, checkpoint_dir},
    logging,
    worker_network::JobNetwork,
};
use millstream_client::proto::v1::{self, log_answer::Answer, log_call::Call, to_task_manager::Body};
use millstream_controlplane::{AdoptionConfig, JobHandle, JobMaster, JobMasterConfig};
use millstream_model::{
    config::{ADOPT_TIMEOUT, Configuration},
    fault::Failure,
    id::{AllocationId, JobId, LeaderEpoch, ResourceId, TaskManagerId, WorkerId},
    job_graph::JobGraph,
    log::LogLevels,
    message::FromWorker,
};
use millstream_slots::{Allocation, ResourceManager, Spread, Worker};
use tonic::Status;

use super::{
    accepted::{AcceptedJob, AcceptedJobs},
    cluster_state::{Connected, State},
    ended::{EndedJob, EndedJobs},
    job::{Job, Outbox},
    log_calls::LogCalls,
    log_levels::SetLevels,
};
use crate::metrics::{ClusterNumbers, JobNumbers};

/// Ended jobs beyond these are forgotten, the oldest first.
const ENDED_JOBS_MAX: usize = 1000;

/// The cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Cluster {
    leadership: Arc<Leadership>,
    accepted: Arc<AcceptedJobs>,
    ended: Arc<EndedJobs>,
    /// Those that have ended with JobManagers before this one.
    earlier: Arc<BTreeMap<JobId, EndedJob>>,
    /// What jobs are configured with that do not say otherwise.
    configuration: Arc<Configuration>,
    state: Arc<Mutex<State>>,
    log_calls: Arc<LogCalls>,
    log_levels: Arc<SetLevels>,
}

/// A TaskManager, and what holds slots of it.
pub(super) struct Occupied {
    pub(super) id: TaskManagerId,
    pub(super) address: String,
    pub(super) heard_millis: i64,
    /// 0 if it is not known; so is the memory.
    pub(super) cpu_cores: u32,
    pub(super) physical_memory_bytes: u64,
    /// `None` if it does not say.
    pub(super) memory: Option<v1::MemoryShares>,
    pub(super) memory_in_use: Option<v1::MemoryInUse>,
    pub(super) slots: u32,
    pub(super) free_slots: u32,
    pub(super) holders: Vec<Holder>,
}

/// A worker of a job, and how many slots it has.
pub(super) struct Holder {
    pub(super) job: JobHandle,
    pub(super) worker: WorkerId,
    pub(super) slots: u32,
}

/// What a TaskManager that registers holds from before.
pub(super) struct Held {
    pub(super) id: AllocationId,
    pub(super) allocation: Allocation,
    /// The first report of its worker.
    pub(super) registered: FromWorker,
}

/// Why a job is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubmissionRefused {
    #[error("there is a job {0} already; give the new run another pipeline.jobid")]
    Known(JobId),
    #[error("the job cannot be started: {0}")]
    Failed(#[from] Failure),
}

impl Cluster {
    pub(super) fn new(
        leadership: Leadership,
        accepted: AcceptedJobs,
        ended: EndedJobs,
        log_levels: SetLevels,
        configuration: Configuration,
        spread: Spread,
    ) -> Cluster {
        let state = State {
            jobs: BTreeMap::new(),
            arriving: BTreeSet::new(),
            task_managers: BTreeMap::new(),
            resources: ResourceManager::new(spread),
        };
        Cluster {
            leadership: Arc::new(leadership),
            accepted: Arc::new(accepted),
            earlier: Arc::new(ended.load(ENDED_JOBS_MAX)),
            ended: Arc::new(ended),
            configuration: Arc::new(configuration),
            state: Arc::new(Mutex::new(state)),
            log_calls: Arc::default(),
            log_levels: Arc::new(log_levels),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a job with an artifact that is there. Writes files.
    pub(super) fn submit(&self, graph: JobGraph, sha256: String) -> Result<(), SubmissionRefused> {
        let id = graph.job_id;
        {
            let mut state = self.lock();
            // Of two at once, one is refused before it writes over what the other has stored.
            if state.jobs.contains_key(&id) || !state.arriving.insert(id) {
                return Err(SubmissionRefused::Known(id));
            }
        }
        let accepted = JobNetwork::new_authority(id).and_then(|authority| {
            let job = AcceptedJob { graph, authority };
            self.accepted.store(&job)?;
            self.start(job, sha256, None)
        });
        if accepted.is_err() {
            self.accepted.forget(id);
        }
        self.lock().arriving.remove(&id);
        accepted.map_err(SubmissionRefused::from)
    }

    /// Takes up the jobs that an earlier JobManager has accepted and not brought to their end. Returns the artifacts that
    /// they need. Reads files.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(super) fn recover(&self) -> Result<HashSet<String>, Failure> {
        let mut needed = HashSet::new();
        for job in self.accepted.all()? {
            let id = job.graph.job_id;
            let Leadership { store, epoch, .. } = &*self.leadership;
            let record = store.load(*epoch, id).map_err(|error| Failure::fatal(error.to_string()))?;
            if record.is_some_and(|(record, _)| record.result.is_some()) {
                // It ended with the JobManager that had just not forgotten it yet.
                self.accepted.forget(id);
                continue;
            }
            let sha256 = job.graph.artifact.as_ref().map(|artifact| artifact.sha256.clone()).unwrap_or_default();
            tracing::info!(job = %id, name = job.graph.name, "a job of an earlier JobManager is taken up");
            needed.insert(sha256.clone());
            let timeout = self.configuration.get(&ADOPT_TIMEOUT)?;
            self.start(job, sha256, Some(timeout))?;
        }
        let known: BTreeSet<JobId> = self.lock().jobs.keys().copied().collect();
        self.log_levels.retain(|id| known.contains(&id));
        let set = self.log_levels.all();
        if !set.is_empty() {
            let levels = logging::set_levels(&set);
            tracing::info!(%levels, "what is logged was changed in the time of an earlier JobManager");
        }
        Ok(needed)
    }

    /// Starts a job that is none of those that are known; `adopt` is how long to wait for workers that may run it still.
    fn start(&self, job: AcceptedJob, sha256: String, adopt: Option<Duration>) -> Result<(), Failure> {
        let AcceptedJob { mut graph, authority } = job;
        let id = graph.job_id;
        let mut configuration = (*self.configuration).clone();
        configuration.merge(&graph.configuration);
        graph.configuration = configuration;
        let network = JobNetwork::new(&graph, authority)?;
        let checkpoint_dir = checkpoint_dir(&graph.configuration)?;
        let (report_sender, reports) = unbounded();
        let (joining_sender, joining) = unbounded();
        let mut state = self.lock();
        let config = JobMasterConfig {
            graph: graph.clone(),
            workers: Vec::new(),
            joining,
            reports,
            store: self.leadership.store.clone(),
            checkpoint_dir,
            epoch: self.leadership.epoch,
        };
        let handle = match adopt {
            None => {
                state.resources.submit(id, graph.required_slots());
                JobMaster::start(config)
            }
            Some(timeout) => {
                state.resources.take_up(id, graph.required_slots());
                let cluster = self.clone();
                let decided = Box::new(move |kept: &BTreeSet<WorkerId>| cluster.on_adoption_decided(id, kept));
                JobMaster::take_up(config, AdoptionConfig { timeout, decided })
            }
        };
        tracing::info!(job = %id, name = graph.name, "a job has a JobMaster");
        let job = Job::new(&graph, handle.clone(), report_sender, joining_sender, network, sha256, wall_millis());
        state.jobs.insert(id, job);
        state.match_slots();
        drop(state);
        self.watch(handle);
        Ok(())
    }

    /// A job's JobMaster goes on with these of the workers that it has found. The others end, and are returned.
    fn on_adoption_decided(&self, id: JobId, kept: &BTreeSet<WorkerId>) -> Vec<WorkerId> {
        let mut state = self.lock();
        state.note_what_is_over();
        let ended = state.resources.on_adoption_decided(id, kept);
        for (allocation, Worker { task_manager, .. }) in &ended {
            state.end_worker(*task_manager, *allocation);
        }
        state.match_slots();
        ended.into_iter().map(|(_, worker)| worker.worker).collect()
    }

    /// Has the cluster know when a job has ended. Its wait blocks, so it has a thread.
    fn watch(&self, handle: JobHandle) {
        let cluster = self.clone();
        let waiting = handle.clone();
        let wait = move || {
            let outcome = waiting.wait();
            // Of one that was taken over by another leader, the result is to come.
            if outcome.status.is_terminal() {
                if let Some(ended) = cluster.note_end(waiting.job()) {
                    cluster.ended.store(ended);
                }
                cluster.accepted.forget(waiting.job());
            }
            cluster.on_job_ended(waiting.job());
        };
        if let Err(cause) = std::thread::Builder::new().name("job-end".to_owned()).spawn(wait) {
            tracing::error!(job = %handle.job(), %cause, "no thread to wait for a job: it is cancelled");
            handle.cancel();
        }
    }

    /// What is left of a job that has just ended.
    fn note_end(&self, id: JobId) -> Option<EndedJob> {
        let mut state = self.lock();
        // Its workers end now, and what follows may take a while: until then none is to be replaced.
        state.resources.on_over(id);
        let job = state.jobs.get_mut(&id)?;
        job.note_end(wall_millis());
        Some(EndedJob { job: job.describe(), result: job.result()? })
    }

    fn on_job_ended(&self, id: JobId) {
        self.log_levels.forget(id);
        let mut state = self.lock();
        for (task_manager, allocation) in state.resources.on_ended(id) {
            let release = v1::SlotRelease { allocation_id: allocation.to_string(), at_once: false };
            state.send(task_manager, Body::Release(release));
        }
        if let Some(job) = state.jobs.get_mut(&id) {
            job.note_end(wall_millis());
            job.ended.send_replace(true);
        }
        let ended = state.jobs.values().filter(|job| job.has_ended());
        let mut ended: Vec<(i64, JobId)> = ended.map(|job| (job.end_time_millis, job.handle.job())).collect();
        ended.sort_unstable();
        for (_, forgotten) in ended.iter().rev().skip(ENDED_JOBS_MAX) {
            state.jobs.remove(forgotten);
        }
    }

    /// Slots that a job waits for.
    pub(super) fn missing_slots(&self, id: JobId) -> u32 {
        let state = self.lock();
        state.resources.missing().filter(|(job, _)| *job == id).map(|(_, missing)| missing).sum()
    }

    /// Why a job does not come up, for those who look after it.
    pub(super) fn note_trouble(&self, id: JobId, why: String) {
        if let Some(job) = self.lock().jobs.get_mut(&id) {
            job.trouble = Some(why);
        }
    }

    /// Does something with a job that is known.
    pub(super) fn with_job<R>(&self, id: JobId, ask: impl FnOnce(&Job) -> R) -> Option<R> {
        self.lock().jobs.get(&id).map(ask)
    }

    /// What is left of a job that has ended with an earlier JobManager.
    pub(super) fn earlier(&self, id: JobId) -> Option<EndedJob> {
        self.earlier.get(&id).cloned()
    }

    /// Asks about all those, but for one that was submitted again.
    pub(super) fn each_earlier<R>(&self, mut ask: impl FnMut(JobId, &EndedJob) -> R) -> Vec<R> {
        let state = self.lock();
        let others = self.earlier.iter().filter(|(id, _)| !state.jobs.contains_key(id));
        others.map(|(id, ended)| ask(*id, ended)).collect()
    }

    /// All jobs, those that have ended with earlier JobManagers among them, oldest first.
    pub(super) fn jobs(&self) -> Vec<v1::Job> {
        let mut jobs = self.each_earlier(|_, ended| ended.job.clone());
        let state = self.lock();
        jobs.extend(state.jobs.values().map(Job::describe));
        jobs.sort_by_key(|job| job.start_time_millis);
        jobs
    }

    /// Asks about every job of this JobManager, oldest first. Nothing may wait in `ask`.
    pub(super) fn each_job<R>(&self, ask: impl FnMut(&Job) -> R) -> Vec<R> {
        let state = self.lock();
        let mut jobs: Vec<&Job> = state.jobs.values().collect();
        jobs.sort_by_key(|job| job.start_time_millis);
        jobs.into_iter().map(ask).collect()
    }

    /// Every TaskManager, and what holds slots of it.
    pub(super) fn occupied(&self) -> Vec<Occupied> {
        let state = self.lock();
        let of = |id: TaskManagerId| {
            let held = state.resources.workers().filter(move |(_, worker)| worker.task_manager == id);
            let holder = |(_, worker): (AllocationId, &Worker)| {
                let job = state.jobs.get(&worker.job)?.handle.clone();
                Some(Holder { job, worker: worker.worker, slots: worker.slots })
            };
            held.filter_map(holder).collect()
        };
        let described = state.resources.task_managers().filter_map(|(id, count)| {
            let connected = state.task_managers.get(&id)?;
            Some(Occupied {
                id,
                address: connected.address.clone(),
                heard_millis: connected.heard_millis,
                cpu_cores: connected.cpu_cores,
                physical_memory_bytes: connected.physical_memory_bytes,
                memory: connected.memory,
                memory_in_use: connected.memory_in_use,
                slots: count.total,
                free_slots: count.free,
                holders: of(id),
            })
        });
        described.collect()
    }

    /// What those are told who watch the cluster.
    pub(super) fn numbers(&self) -> ClusterNumbers {
        let state = self.lock();
        let (mut slots, mut free_slots) = (0, 0);
        for (_, count) in state.resources.task_managers() {
            slots += count.total;
            free_slots += count.free;
        }
        let task_managers = state.task_managers.len();
        let running = state.jobs.values().filter(|job| !job.has_ended());
        let running: Vec<_> = running.map(|job| (job.name.clone(), job.handle.clone())).collect();
        // What jobs have to tell may be much, and others wait for the cluster.
        drop(state);
        let jobs = running.into_iter().map(|(name, handle)| JobNumbers {
            id: handle.job(),
            name,
            status: handle.status(),
            metrics: handle.metrics(),
        });
        ClusterNumbers { task_managers, slots, free_slots, jobs: jobs.collect(), now_millis: wall_millis() }
    }

    /// Of the leader that this process is.
    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.leadership.epoch
    }

    /// Whether jobs outlive this process.
    pub(super) fn jobs_are_kept(&self) -> bool {
        self.accepted.are_kept()
    }

    /// Ends all TaskManagers, those that are there: the cluster ends.
    pub(super) fn dismiss_task_managers(&self) {
        let state = self.lock();
        state.task_managers.keys().for_each(|id| state.send(*id, Body::Dismissed(v1::Dismissed {})));
    }

    /// Calls about logs that TaskManagers have not answered yet.
    pub(super) fn log_calls(&self) -> &LogCalls {
        &self.log_calls
    }

    /// What was said about what is logged.
    pub(super) fn log_levels(&self) -> &SetLevels {
        &self.log_levels
    }

    /// Changes what is logged, here and everywhere, or in the workers of a job. Returns all that is set for it. Writes a file.
    pub(super) fn set_log_levels(&self, job: Option<JobId>, levels: &LogLevels, reset: bool) -> LogLevels {
        let set = self.log_levels.set(job, levels, reset);
        if job.is_none() {
            let levels = logging::set_levels(&set);
            tracing::info!(%levels, "what is logged was changed");
        }
        let job_id = job.map(|job| job.to_string()).unwrap_or_default();
        let state = self.lock();
        for id in state.task_managers.keys() {
            let levels = v1::LogLevels { job_id: job_id.clone(), levels: set.to_string() };
            state.send(*id, Body::LogLevels(levels));
        }
        drop(state);
        set
    }

    /// Asks a TaskManager about its logs.
    ///
    /// # Errors
    /// Why it does not answer, or cannot.
    pub(super) async fn ask_about_logs(&self, id: TaskManagerId, call: Call) -> Result<Answer, String> {
        let (call, answer) = self.log_calls.begin(id, call);
        // Whose end comes after this is there has the call ended as well.
        if !self.lock().task_managers.contains_key(&id) {
            self.log_calls.on_gone(id);
        }
        self.lock().send(id, Body::LogCall(call));
        answer.wait().await
    }

    /// A TaskManager has shown that it lives.
    pub(super) fn on_heartbeat(&self, id: TaskManagerId, memory: Option<v1::MemoryInUse>) {
        if let Some(connected) = self.lock().task_managers.get_mut(&id) {
            connected.heard_millis = wall_millis();
            connected.memory_in_use = memory;
        }
    }

    /// Whether a job that has not ended was started from this artifact.
    pub(super) fn needs_artifact(&self, sha256: &str) -> bool {
        self.lock().jobs.values().any(|job| job.sha256 == sha256 && !job.has_ended())
    }

    pub(super) fn task_managers(&self) -> Vec<v1::TaskManager> {
        let state = self.lock();
        let described = state.resources.task_managers().map(|(id, count)| v1::TaskManager {
            id: id.to_string(),
            address: state.task_managers.get(&id).map(|known| known.address.clone()).unwrap_or_default(),
            slots: count.total,
            free_slots: count.free,
        });
        described.collect()
    }

    /// A TaskManager is there, with what it holds from before. False if it was there already.
    pub(super) fn on_registered(
        &self,
        (id, resource): (TaskManagerId, ResourceId),
        from: Option<IpAddr>,
        registration: v1::Registration,
        held: Vec<Held>,
        outbox: Outbox,
    ) -> bool {
        let v1::Registration { address, slots, cpu_cores, physical_memory_bytes, memory, .. } = registration;
        let ids: Vec<_> = held.iter().map(|held| held.id).collect();
        let mut state = self.lock();
        for before in state.resources.instances_before(resource, &ids) {
            self.lose(&mut state, before, "it has registered anew");
        }
        if state.task_managers.contains_key(&id) {
            return false;
        }
        tracing::info!(task_manager = %id, address, slots, "a TaskManager has registered");
        let connected = Connected {
            address,
            from,
            cpu_cores,
            physical_memory_bytes,
            memory,
            memory_in_use: None,
            outbox,
            heard_millis: wall_millis(),
        };
        state.task_managers.insert(id, connected);
        self.log_levels.messages().into_iter().for_each(|levels| state.send(id, Body::LogLevels(levels)));
        state.resources.on_registered(id, resource, slots);
        for Held { id: allocation, allocation: held, registered } in held {
            let worker = registered.worker;
            if state.resources.on_held(id, allocation, held, worker) {
                tracing::info!(job = %held.job, worker = worker.0, slots = held.slots, "a worker has outlived a JobManager");
                state.on_report(id, allocation, registered);
            } else {
                tracing::info!(job = %held.job, worker = worker.0, "a worker that nobody waits for is ended");
                state.end_worker(id, allocation);
            }
        }
        state.match_slots();
        true
    }

    /// A TaskManager is gone, and all that it ran.
    pub(super) fn on_gone(&self, id: TaskManagerId, why: &str) {
        let mut state = self.lock();
        self.lose(&mut state, id, why);
        state.match_slots();
    }

    fn lose(&self, state: &mut State, id: TaskManagerId, why: &str) {
        let Some(connected) = state.task_managers.remove(&id) else { return };
        self.log_calls.on_gone(id);
        tracing::warn!(task_manager = %id, address = connected.address, why, "a TaskManager is gone");
        // If it lives after all, it is to register again instead of waiting for what will never come.
        let _ = connected.outbox.send(Err(Status::aborted(format!("it was taken for gone: {why}"))));
        state.note_what_is_over();
        let why = format!("its TaskManager at {} is gone: {why}", connected.address);
        for lost in state.resources.on_gone(id) {
            state.tell_lost(lost, Failure::new(&why));
        }
    }

    /// A worker has said something.
    pub(super) fn on_report(&self, from: TaskManagerId, allocation: AllocationId, message: FromWorker) {
        self.lock().on_report(from, allocation, message);
    }

    /// An allocation holds nothing any more.
    pub(super) fn on_freed(&self, from: TaskManagerId, allocation: AllocationId, failure: Failure) {
        let mut state = self.lock();
        state.note_what_is_over();
        if let Some(lost) = state.resources.on_freed(from, allocation) {
            state.tell_lost(lost, failure);
            if let Some(pause) = lost.pause {
                let cluster = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    cluster.require_again(lost.job);
                });
            }
        }
        state.match_slots();
    }

    fn require_again(&self, id: JobId) {
        let mut state = self.lock();
        state.note_what_is_over();
        state.resources.require_again(id);
        state.match_slots();
    }

    /// Logs what becomes of the jobs that run when this process ends.
    pub(super) fn log_end(&self) {
        let state = self.lock();
        let fate = match self.accepted.are_kept() {
            true => "it runs on, and the next JobManager takes it up",
            false => "it ends with this process",
        };
        for job in state.jobs.values().filter(|job| !job.has_ended()) {
            tracing::warn!(job = %job.handle.job(), name = job.name, fate, "the JobManager ends while a job runs");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "people are told when a job was submitted")]
pub(super) fn wall_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
