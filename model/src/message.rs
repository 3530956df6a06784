//! What coordinator and workers tell each other. Every message of a coordinator carries its [`LeaderEpoch`].

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    deployment::{CoordinatorState, Deployment, SubtaskState},
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, Generation, LeaderEpoch, OperatorId, SlotIndex, WorkerId},
    job_graph::JobGraph,
    log::LogLevels,
    state::ExecutionState,
};

/// From a JobMaster to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToWorker {
    /// The leader that speaks; a worker refuses lower ones than it has seen.
    pub epoch: LeaderEpoch,
    pub command: Command,
}

/// What a JobMaster asks of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Start the subtasks of a region that are placed on this worker. The graph comes with each, so that it is idempotent.
    Deploy {
        graph: Box<JobGraph>,
        deployment: Box<Deployment>,
    },
    /// Stop all tasks of this generation.
    Cancel {
        generation: Generation,
    },
    /// Snapshot the coordinators of operators that run on this worker, and hold back what they send from then on.
    SnapshotCoordinators {
        generation: Generation,
        checkpoint: CheckpointId,
    },
    /// Put barriers into the sources. All coordinators have answered; what they sent since may follow the barriers.
    TriggerCheckpoint {
        generation: Generation,
        checkpoint: CheckpointId,
        kind: CheckpointKind,
    },
    /// The pointer names this checkpoint or a later one: sinks commit.
    CheckpointComplete {
        generation: Generation,
        checkpoint: CheckpointId,
    },
    CheckpointAborted {
        generation: Generation,
        checkpoint: CheckpointId,
    },
    /// All subtasks of the job have reached the end of their data and the final checkpoint is durable: commit and finish.
    Finish {
        generation: Generation,
    },
    /// Say what runs here. The answer is [`Report::Status`]: a new leader asks before it adopts or restarts anything.
    ReportStatus,
    /// Log from now on what these say, and as at the start where they say nothing. From whoever has started the process,
    /// whatever its leader is.
    SetLogLevels {
        levels: LogLevels,
    },
    /// End the process's part in the job.
    Shutdown,
}

/// Why a checkpoint is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CheckpointKind {
    Checkpoint,
    /// The last one of a bounded job, after the end of all data.
    Final,
}

/// From a worker to the JobMaster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FromWorker {
    pub worker: WorkerId,
    pub report: Report,
}

/// What a worker reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// The first report of a worker: it is ready for deployments.
    Registered {
        slots: u32,
        /// Where it takes connections of other workers; `None` if it takes none.
        shuffle_address: Option<SocketAddr>,
    },
    /// What runs on the worker: the answer to [`Command::ReportStatus`]. No report of a later change precedes it.
    Status { tasks: Vec<TaskStatus> },
    /// A task has changed its state. `failure` is there with `Failed`.
    Task { attempt: ExecutionAttemptId, state: ExecutionState, failure: Option<Failure> },
    /// A task has read all of its bounded input and passed everything on.
    EndOfData { attempt: ExecutionAttemptId },
    /// A task's part of a checkpoint is stored.
    CheckpointAck { attempt: ExecutionAttemptId, checkpoint: CheckpointId, state: SubtaskState, stats: SnapshotStats },
    /// A coordinator's part of a checkpoint.
    CoordinatorAck { generation: Generation, checkpoint: CheckpointId, state: CoordinatorState },
    /// A part of a checkpoint could not be stored.
    CheckpointDeclined { generation: Generation, checkpoint: CheckpointId, failure: Failure },
    /// Results for the client: accumulators and collected records of a finished task.
    Result { attempt: ExecutionAttemptId, result: TaskResult },
    /// Counters of running tasks, sent about once a second and when a task ends.
    Metrics { tasks: Vec<(ExecutionAttemptId, TaskMetrics)> },
    /// What the tasks of a new deployment are called, for those who show their numbers without knowing the job graph.
    Deployed { job_name: String, tasks: Vec<TaskName> },
    /// What functions say of themselves, sent with the counters: the newest values of all.
    OperatorMetrics { tasks: Vec<(ExecutionAttemptId, Vec<OperatorMetric>)> },
    /// How the worker's connections to its peers are doing, sent with the counters.
    Shuffle { peers: Vec<(WorkerId, ShuffleMetrics)> },
    /// What is used of the memory of the worker's slots, sent with the counters.
    Memory { memory: MemoryMetrics },
    /// The worker itself cannot go on, or a message could not be obeyed.
    WorkerFailed { failure: Failure },
}

/// One task that a worker has, as a new leader is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub attempt: ExecutionAttemptId,
    /// Of the worker.
    pub slot: SlotIndex,
    pub state: ExecutionState,
    /// Whether it has read all of its bounded input and passed everything on.
    pub end_of_data: bool,
}

/// What a task hands back when it finishes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Sums by name.
    pub accumulators: BTreeMap<String, i64>,
    /// Records that a collecting sink kept, as length-prefixed archives, by operator.
    pub collected: Vec<(OperatorId, Vec<u8>)>,
}

/// How a subtask's snapshot went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStats {
    /// From the first barrier to the last one.
    pub alignment_nanos: u64,
    /// On the slot's thread.
    pub sync_nanos: u64,
    /// Storing the file, off the slot's thread.
    pub async_nanos: u64,
    pub state_bytes: u64,
}

/// Counters of one task since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMetrics {
    pub records_in: u64,
    pub records_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub busy_nanos: u64,
    pub idle_nanos: u64,
    pub backpressured_nanos: u64,
    /// The longest time that one step kept its slot from others.
    pub longest_step_nanos: u64,
    /// The same of the steps since the report before, one that has not ended among them.
    pub recent_step_nanos: u64,
    /// Bytes that wait in front of the task.
    pub input_queue_bytes: u64,
    /// Bytes of room that senders were promised and that is not free again; and how much of it there may be for now, which
    /// follows the task's speed: `shuffle.credit.in-flight` and `shuffle.credit.target`.
    pub input_promised_bytes: u64,
    pub input_target_bytes: u64,
    /// The watermark, as milliseconds; `i64::MIN` before the first.
    pub watermark_millis: i64,
}

/// A task and the name of its vertex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskName {
    pub attempt: ExecutionAttemptId,
    /// Which of the subtask's attempts it is, from 1 on.
    pub attempt_number: u64,
    pub name: String,
}

/// A number that a function reports of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatorMetric {
    pub operator: OperatorId,
    pub operator_name: String,
    pub name: String,
    pub value: MetricValue,
}

/// What is reported under a name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum MetricValue {
    /// It only grows, as a rule.
    Counter(i64),
    Gauge(f64),
}

/// What a worker uses of its slots' memory, and what they have; `u64::MAX` where nothing is limited. In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryMetrics {
    /// Keyed state.
    pub managed_used: u64,
    pub managed_max: u64,
    /// Buffers between tasks that hold something or are about to.
    pub network_used: u64,
    pub network_max: u64,
    /// The size of a buffer.
    pub segment_bytes: u64,
}

/// The connection to one peer, since it was made. Credit is counted over the channels of running deployments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShuffleMetrics {
    /// `quic` or `tcp`.
    pub transport: String,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Room that the peer has granted for what is sent to it, in bytes: `shuffle.credit.granted`.
    pub credit_granted: u64,
    /// How much of it was used: `shuffle.credit.spent`.
    pub credit_spent: u64,
    /// Bytes that wait for credit or for the connection, about.
    pub backlog_bytes: u64,
    /// How long any channel had something to send and no credit for it.
    pub starved_nanos: u64,
    /// Calls to its socket that a ring has carried, instead of a system call each: `shuffle.io.submissions`.
    pub io_submissions: u64,
}
