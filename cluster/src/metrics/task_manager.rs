//! The metrics of a TaskManager: of its workers' tasks, as they have reported them last, and of its processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millstream::memory::available_bytes;
use millstream_model::{
    id::{AllocationId, ExecutionAttemptId, JobId, Subtask, WorkerId},
    message::{FromWorker, MemoryMetrics, MetricValue, OperatorMetric, Report, ShuffleMetrics, TaskMetrics, TaskName},
    rates::RateWindow,
};

use super::{
    process::ProcessNumbers,
    scrape::{Collect, Labels, Scope, Scrape, and},
};

/// What the workers of a TaskManager have said of themselves. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerNumbers(Arc<Mutex<BTreeMap<AllocationId, WorkerState>>>);

#[derive(Debug)]
struct WorkerState {
    job: JobId,
    job_name: String,
    worker: WorkerId,
    process: Option<u32>,
    tasks: BTreeMap<ExecutionAttemptId, TaskState>,
    peers: BTreeMap<WorkerId, ShuffleMetrics>,
    memory: MemoryMetrics,
}

#[derive(Debug, Default)]
struct TaskState {
    /// Which of the subtask's attempts it is.
    number: u64,
    name: String,
    metrics: Option<TaskMetrics>,
    rates: RateWindow,
    operators: Vec<OperatorMetric>,
}

impl WorkerNumbers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AllocationId, WorkerState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker is about to be there.
    pub(crate) fn on_starting(&self, allocation: AllocationId, job: JobId, worker: WorkerId) {
        let (job_name, process, tasks, peers, memory) = Default::default();
        self.lock().insert(allocation, WorkerState { job, job_name, worker, process, tasks, peers, memory });
    }

    /// Its process is there.
    pub(crate) fn on_started(&self, allocation: AllocationId, process: u32) {
        if let Some(worker) = self.lock().get_mut(&allocation) {
            worker.process = Some(process);
        }
    }

    /// What a worker's job is called, once that is known.
    pub(crate) fn job_name(&self, allocation: AllocationId) -> String {
        self.lock().get(&allocation).map(|worker| worker.job_name.clone()).unwrap_or_default()
    }

    /// What a worker has said of its memory last.
    pub(crate) fn memory(&self, allocation: AllocationId) -> MemoryMetrics {
        self.lock().get(&allocation).map(|worker| worker.memory).unwrap_or_default()
    }

    /// What all workers use together.
    pub(crate) fn memory_in_use(&self) -> MemoryInUse {
        let workers = self.lock();
        let memory = || workers.values().map(|worker| worker.memory);
        MemoryInUse {
            managed: memory().map(|memory| memory.managed_used).sum(),
            network: memory().map(|memory| memory.network_used).sum(),
        }
    }

    /// It has gone, and all that it said with it.
    pub(crate) fn on_ended(&self, allocation: AllocationId) {
        self.lock().remove(&allocation);
    }

    /// Takes note of a report. Whether the JobMaster wants it, too.
    pub(crate) fn on_report(&self, allocation: AllocationId, message: &FromWorker) -> bool {
        let mut workers = self.lock();
        let Some(worker) = workers.get_mut(&allocation) else { return true };
        match &message.report {
            Report::Deployed { job_name, tasks } => {
                worker.job_name.clone_from(job_name);
                // The worker's other regions run on.
                let starts_again =
                    |old: &ExecutionAttemptId| tasks.iter().any(|new| new.attempt.subtask == old.subtask);
                worker.tasks.retain(|old, _| !starts_again(old));
                let of = |task: &TaskName| {
                    let (number, name) = (task.attempt_number, task.name.clone());
                    (task.attempt, TaskState { number, name, ..TaskState::default() })
                };
                worker.tasks.extend(tasks.iter().map(of));
                return false;
            }
            Report::OperatorMetrics { tasks } => {
                for (attempt, operators) in tasks {
                    if let Some(task) = worker.tasks.get_mut(attempt) {
                        task.operators.clone_from(operators);
                    }
                }
                return false;
            }
            Report::Memory { memory } => {
                worker.memory = *memory;
                return false;
            }
            Report::Metrics { tasks } => {
                for (attempt, metrics) in tasks {
                    if let Some(task) = worker.tasks.get_mut(attempt) {
                        task.metrics = Some(*metrics);
                        task.rates.push(*metrics);
                    }
                }
            }
            Report::WorkerFailed { .. } => drop(workers.remove(&allocation)),
            Report::Task { attempt, state, .. } if state.is_terminal() => drop(worker.tasks.remove(attempt)),
            Report::Shuffle { peers } => worker.peers = peers.iter().cloned().collect(),
            _ => {}
        }
        true
    }
}

/// What the slots of a TaskManager have together, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryShares {
    pub(crate) managed: u64,
    pub(crate) network: u64,
    /// The size of a buffer, where nothing makes it smaller.
    pub(crate) segment: u64,
}

/// What is used of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct MemoryInUse {
    pub(crate) managed: u64,
    pub(crate) network: u64,
}

impl MemoryShares {
    /// Under Flink's names.
    fn show(self, scope: &mut Scope<'_>, used: MemoryInUse) {
        let (total, used_network) = (self.network, used.network.min(self.network));
        let segments = |bytes: u64| (bytes / self.segment) as f64;
        scope
            .gauge("Status.Flink.Memory.Managed.Used", used.managed as f64)
            .gauge("Status.Flink.Memory.Managed.Total", self.managed as f64)
            .gauge("Status.Shuffle.Netty.UsedMemory", used_network as f64)
            .gauge("Status.Shuffle.Netty.AvailableMemory", (total - used_network) as f64)
            .gauge("Status.Shuffle.Netty.TotalMemory", total as f64)
            .gauge("Status.Shuffle.Netty.UsedMemorySegments", segments(used_network))
            .gauge("Status.Shuffle.Netty.AvailableMemorySegments", segments(total) - segments(used_network))
            .gauge("Status.Shuffle.Netty.TotalMemorySegments", segments(total));
    }
}

/// All numbers of a TaskManager's process and its workers.
pub(crate) struct TaskManagerMetrics {
    pub(crate) workers: WorkerNumbers,
    pub(crate) shares: MemoryShares,
    /// As labels show it.
    pub(crate) host: String,
    pub(crate) id: String,
}

impl Collect for TaskManagerMetrics {
    fn collect(&self, scrape: &mut Scrape) {
        let own: Labels = Arc::new(vec![("host", self.host.clone()), ("tm_id", self.id.clone())]);
        // Before the lock, which workers' reports wait for: the kernel may take its time.
        let processes: Vec<u32> = self.workers.lock().values().filter_map(|worker| worker.process).collect();
        let processes: BTreeMap<u32, ProcessNumbers> =
            processes.into_iter().map(|process| (process, ProcessNumbers::of(process))).collect();
        let all = processes.values().copied().fold(ProcessNumbers::own(), ProcessNumbers::and);
        let memory_max = available_bytes();
        all.show(&mut scrape.scope("taskmanager", &own), memory_max);
        self.shares.show(&mut scrape.scope("taskmanager", &own), self.workers.memory_in_use());
        let workers = self.workers.lock();
        scrape.scope("taskmanager", &own).gauge("numRunningWorkers", workers.len() as f64);
        for worker in workers.values() {
            // One that has just come is there the next time.
            let process = worker.process.and_then(|process| processes.get(&process));
            worker.collect(&own, process, memory_max, scrape);
        }
    }
}

impl WorkerState {
    fn collect(&self, own: &Labels, process: Option<&ProcessNumbers>, memory_max: u64, scrape: &mut Scrape) {
        let job = and(own, [("job_id", self.job.to_string()), ("job_name", self.job_name.clone())]);
        if let Some(process) = process {
            process.show(&mut scrape.scope("taskmanager.job.worker", &and(&job, [self.label()])), memory_max);
        }
        let memory = &self.memory;
        scrape
            .scope("taskmanager.job.worker", &and(&job, [self.label()]))
            .gauge("Status.Flink.Memory.Managed.Used", memory.managed_used as f64)
            .gauge("Status.Flink.Memory.Managed.Total", memory.managed_max as f64)
            .gauge("Status.Shuffle.Netty.UsedMemory", memory.network_used as f64)
            .gauge("Status.Shuffle.Netty.TotalMemory", memory.network_max as f64);
        for (peer, metrics) in &self.peers {
            self.collect_peer(&job, *peer, metrics, scrape);
        }
        for (attempt, task) in &self.tasks {
            let ExecutionAttemptId { subtask: Subtask { vertex, index }, generation } = attempt;
            let labels = and(
                &job,
                [
                    ("task_id", vertex.to_string()),
                    ("task_name", task.name.clone()),
                    ("subtask_index", index.to_string()),
                    ("task_attempt_id", format!("{}_{}", attempt.subtask, generation.0)),
                    ("task_attempt_num", task.number.to_string()),
                ],
            );
            task.collect(&labels, scrape);
        }
    }

    fn label(&self) -> (&'static str, String) {
        ("worker", self.worker.0.to_string())
    }

    fn collect_peer(&self, job: &Labels, peer: WorkerId, metrics: &ShuffleMetrics, scrape: &mut Scrape) {
        let more = [self.label(), ("peer", peer.0.to_string()), ("transport", metrics.transport.clone())];
        let labels = and(job, more);
        scrape
            .scope("taskmanager.job.shuffle", &labels)
            .counter("bytesSent", metrics.sent_bytes as f64)
            .counter("bytesReceived", metrics.received_bytes as f64)
            .counter("credit.granted", metrics.credit_granted as f64)
            .counter("credit.spent", metrics.credit_spent as f64)
            .counter("credit.starvedTimeNanos", metrics.starved_nanos as f64)
            .gauge("backlog", metrics.backlog_bytes as f64)
            .counter("io.submissions", metrics.io_submissions as f64);
    }
}

impl TaskState {
    fn collect(&self, labels: &Labels, scrape: &mut Scrape) {
        if let Some(metrics) = &self.metrics {
            let millis = |nanos: u64| (nanos / 1_000_000) as f64;
            let mut scope = scrape.scope("taskmanager.job.task", labels);
            scope
                .counter("numRecordsIn", metrics.records_in as f64)
                .counter("numRecordsOut", metrics.records_out as f64)
                .counter("numBytesIn", metrics.bytes_in as f64)
                .counter("numBytesOut", metrics.bytes_out as f64)
                .counter("accumulateBusyTimeMs", millis(metrics.busy_nanos))
                .counter("accumulateIdleTimeMs", millis(metrics.idle_nanos))
                .counter("accumulateBackPressuredTimeMs", millis(metrics.backpressured_nanos))
                .gauge("longestStepMs", metrics.longest_step_nanos as f64 / 1e6)
                .gauge("Shuffle.Netty.Input.Buffers.inputQueueSize", metrics.input_queue_bytes as f64)
                .gauge("shuffle.credit.in-flight", metrics.input_promised_bytes as f64)
                .gauge("shuffle.credit.target", metrics.input_target_bytes as f64);
            // Before the first watermark Flink shows the lowest number there is, which spoils every graph.
            if metrics.watermark_millis != i64::MIN {
                scope.gauge("currentInputWatermark", metrics.watermark_millis as f64);
            }
        }
        if let Some(rates) = self.rates.rates() {
            let mut scope = scrape.scope("taskmanager.job.task", labels);
            scope
                .gauge("numRecordsInPerSecond", rates.records_in_per_second)
                .gauge("numRecordsOutPerSecond", rates.records_out_per_second)
                .gauge("numBytesInPerSecond", rates.bytes_in_per_second)
                .gauge("numBytesOutPerSecond", rates.bytes_out_per_second)
                .gauge("busyTimeMsPerSecond", rates.busy_millis_per_second)
                .gauge("idleTimeMsPerSecond", rates.idle_millis_per_second)
                .gauge("backPressuredTimeMsPerSecond", rates.backpressured_millis_per_second);
        }
        for metric in &self.operators {
            let operator =
                [("operator_id", metric.operator.to_string()), ("operator_name", metric.operator_name.clone())];
            let labels = and(labels, operator);
            let mut scope = scrape.scope("taskmanager.job.task.operator", &labels);
            match metric.value {
                MetricValue::Counter(sum) => scope.counter(&metric.name, sum as f64),
                MetricValue::Gauge(value) => scope.gauge(&metric.name, value),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::{
        id::{Generation, JobVertexId, OperatorId},
        state::ExecutionState,
    };

    use super::*;

    const ALLOCATION: AllocationId = AllocationId(9);

    fn attempt(index: u32) -> ExecutionAttemptId {
        ExecutionAttemptId { subtask: Subtask { vertex: JobVertexId(1), index }, generation: Generation(3) }
    }

    fn numbers(reports: Vec<(Report, bool)>) -> Scrape {
        let workers = WorkerNumbers::default();
        workers.on_starting(ALLOCATION, JobId(7), WorkerId(2));
        workers.on_started(ALLOCATION, std::process::id());
        for (report, is_passed_on) in reports {
            assert_eq!(workers.on_report(ALLOCATION, &FromWorker { worker: WorkerId(2), report }), is_passed_on);
        }
        let mut scrape = Scrape::default();
        let shares = MemoryShares { managed: 1 << 20, network: 1 << 20, segment: 32 << 10 };
        TaskManagerMetrics { workers, shares, host: "here".to_owned(), id: "tm".to_owned() }.collect(&mut scrape);
        scrape
    }

    fn value(scrape: &Scrape, name: &str) -> Vec<f64> {
        scrape.families.get(name).map_or(Vec::new(), |family| family.points.iter().map(|(_, value)| *value).collect())
    }

    fn named(attempt: ExecutionAttemptId, attempt_number: u64) -> TaskName {
        TaskName { attempt, attempt_number, name: "map".to_owned() }
    }

    fn deployed() -> (Report, bool) {
        let tasks = [0, 1].map(|index| named(attempt(index), 1));
        (Report::Deployed { job_name: "job".to_owned(), tasks: tasks.to_vec() }, false)
    }

    fn metrics(index: u32, records_in: u64, idle_nanos: u64) -> (Report, bool) {
        let metrics = TaskMetrics { records_in, idle_nanos, watermark_millis: i64::MIN, ..TaskMetrics::default() };
        (Report::Metrics { tasks: vec![(attempt(index), metrics)] }, true)
    }

    #[test]
    fn tasks_show_what_they_have_reported_until_they_end() {
        let value_of = MetricValue::Counter(5);
        let operator = OperatorMetric {
            operator: OperatorId(4),
            operator_name: "map".to_owned(),
            name: "late".to_owned(),
            value: value_of,
        };
        let of_operators = Report::OperatorMetrics { tasks: vec![(attempt(0), vec![operator])] };
        let mut reports =
            vec![deployed(), metrics(0, 10, 1_000_000_000), metrics(0, 30, 3_000_000_000), (of_operators, false)];
        let scrape = numbers(reports.clone());
        assert_eq!(value(&scrape, "taskmanager.job.task.numRecordsIn"), [30.0]);
        assert_eq!(value(&scrape, "taskmanager.job.task.numRecordsInPerSecond"), [10.0]);
        assert_eq!(value(&scrape, "taskmanager.job.task.idleTimeMsPerSecond"), [1000.0]);
        assert_eq!(value(&scrape, "taskmanager.job.task.operator.late"), [5.0]);
        assert_eq!(value(&scrape, "taskmanager.job.task.currentInputWatermark"), [] as [f64; 0]);
        let (labels, _) = &scrape.families["taskmanager.job.task.operator.late"].points[0];
        let names: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "host",
                "tm_id",
                "job_id",
                "job_name",
                "task_id",
                "task_name",
                "subtask_index",
                "task_attempt_id",
                "task_attempt_num",
                "operator_id",
                "operator_name"
            ]
        );
        assert!(value(&scrape, "taskmanager.Status.JVM.Memory.Heap.Used")[0] > 0.0);

        let (state, failure) = (ExecutionState::Finished, None);
        reports.push((Report::Task { attempt: attempt(0), state, failure }, true));
        assert_eq!(value(&numbers(reports), "taskmanager.job.task.numRecordsIn"), [] as [f64; 0]);
    }

    #[test]
    fn a_region_that_is_deployed_again_replaces_its_own_tasks_and_no_others() {
        let again = ExecutionAttemptId { generation: Generation(7), ..attempt(1) };
        let tasks = vec![named(again, 2)];
        let deployed_again = (Report::Deployed { job_name: "job".to_owned(), tasks }, false);
        let metrics_again = TaskMetrics { records_in: 5, watermark_millis: i64::MIN, ..TaskMetrics::default() };
        let reports = vec![
            deployed(),
            metrics(0, 10, 0),
            metrics(1, 20, 0),
            deployed_again,
            (Report::Metrics { tasks: vec![(again, metrics_again)] }, true),
        ];
        let scrape = numbers(reports);
        assert_eq!(value(&scrape, "taskmanager.job.task.numRecordsIn"), [10.0, 5.0]);
        let points = &scrape.families["taskmanager.job.task.numRecordsIn"].points;
        let numbers: Vec<_> = points
            .iter()
            .flat_map(|(labels, _)| labels.iter().filter(|(name, _)| *name == "task_attempt_num"))
            .map(|(_, number)| number.as_str())
            .collect();
        assert_eq!(numbers, ["1", "2"]);
    }

    #[test]
    fn memory_shows_what_the_workers_use_of_what_the_slots_have() {
        let memory = MemoryMetrics { managed_used: 1000, managed_max: 4000, network_used: 65536, ..Default::default() };
        let scrape = numbers(vec![deployed(), (Report::Memory { memory }, false)]);
        for (name, expected) in [
            ("taskmanager.Status.Flink.Memory.Managed.Used", 1000.0),
            ("taskmanager.Status.Flink.Memory.Managed.Total", 1048576.0),
            ("taskmanager.Status.Shuffle.Netty.UsedMemorySegments", 2.0),
            ("taskmanager.Status.Shuffle.Netty.AvailableMemorySegments", 30.0),
            ("taskmanager.job.worker.Status.Flink.Memory.Managed.Total", 4000.0),
        ] {
            assert_eq!(value(&scrape, name), [expected], "{name}");
        }
    }

    #[test]
    fn what_is_late_of_another_deployment_does_not_count() {
        let late = ExecutionAttemptId { generation: Generation(2), ..attempt(0) };
        let reports = vec![deployed(), (Report::Metrics { tasks: vec![(late, TaskMetrics::default())] }, true)];
        assert_eq!(value(&numbers(reports), "taskmanager.job.task.numRecordsIn"), [] as [f64; 0]);
    }
}
