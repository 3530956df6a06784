//! Runs coordinators of operators: a thread for each, between its subtasks and the JobMaster.
//!
//! After a snapshot for a checkpoint, what a coordinator sends is held back until the barriers are in the sources:
//! else a split that the snapshot no longer has could reach a reader before its barrier, and be in both or neither.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use millstream_api::{
    context::{Accumulators, ContextParts, IoTask, RuntimeContext, Services, TaskWaker},
    coordinator::{CoordinatorActions, OperatorCoordinator},
    factory::{Build, Product},
    flow::{self, Flow},
    metrics::MetricRegistry,
    panics,
    state::account::SlotAccount,
};
use millstream_model::{
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, Generation, OperatorId, Subtask},
    job_graph::JobGraph,
};

use millstream_shuffle::{
    exchange::PeerLine,
    wire::message::{CoordinatorEvent, Direction},
};

use crate::{
    chain::call_factory,
    clock,
    report::Reporter,
    slot_thread::{Mail, SlotMailbox},
    task::TaskMail,
};

/// A mail to a coordinator's thread.
pub(crate) enum CoordinatorMail {
    Event {
        subtask: u32,
        event: Vec<u8>,
    },
    Snapshot(CheckpointId),
    /// The sources have their barriers: what was held back may go.
    Release,
}

/// How others reach a coordinator.
#[derive(Clone)]
pub(crate) enum CoordinatorLine {
    /// Its thread, which ends when all of these are gone.
    Here(Sender<CoordinatorMail>),
    /// The worker that hosts subtask 0 of its operator.
    There { peer: PeerLine, generation: Generation, operator: OperatorId },
}

impl CoordinatorLine {
    pub(crate) fn send(&self, subtask: u32, event: Vec<u8>) {
        match self {
            CoordinatorLine::Here(_) => self.mail(CoordinatorMail::Event { subtask, event }),
            CoordinatorLine::There { peer, generation, operator } => peer.send(CoordinatorEvent {
                generation: *generation,
                operator: *operator,
                subtask,
                direction: Direction::ToCoordinator,
                bytes: event,
            }),
        }
    }

    /// For a coordinator of this worker.
    pub(crate) fn mail(&self, mail: CoordinatorMail) {
        if let CoordinatorLine::Here(mails) = self {
            let _ = mails.send(mail);
        }
    }

    pub(crate) fn is_here(&self) -> bool {
        matches!(self, CoordinatorLine::Here(_))
    }
}

/// How a coordinator reaches one of its subtasks.
pub(crate) enum SubtaskLine {
    Here(SlotMailbox),
    There(PeerLine),
}

/// What a coordinator has contributed to a checkpoint, for the worker.
pub(crate) struct CoordinatorSnapshot {
    pub(crate) generation: Generation,
    pub(crate) operator: OperatorId,
    pub(crate) checkpoint: CheckpointId,
    pub(crate) state: Result<Vec<u8>, Failure>,
}

/// What a coordinator's thread starts with.
pub(crate) struct CoordinatorParts {
    pub(crate) graph: Arc<JobGraph>,
    pub(crate) vertex: usize,
    pub(crate) operator: usize,
    pub(crate) generation: Generation,
    pub(crate) restored: Option<Vec<u8>>,
    /// The ways to the operator's subtasks, by index.
    pub(crate) subtasks: Vec<SubtaskLine>,
    pub(crate) reporter: Reporter,
    pub(crate) snapshots: Sender<CoordinatorSnapshot>,
}

/// A line whose thread is yet to be started, so that tasks can have it first.
pub(crate) fn line() -> (CoordinatorLine, Receiver<CoordinatorMail>) {
    let (sender, receiver) = unbounded();
    (CoordinatorLine::Here(sender), receiver)
}

pub(crate) fn start(parts: CoordinatorParts, mails: Receiver<CoordinatorMail>) -> Result<(), Failure> {
    let run = move || {
        panics::watch_this_thread();
        let subtask = Subtask { vertex: parts.graph.vertices[parts.vertex].id, index: 0 };
        let attempt = ExecutionAttemptId { subtask, generation: parts.generation };
        let name = parts.graph.vertices[parts.vertex].operators[parts.operator].name.clone();
        let reporter = parts.reporter.clone();
        let ran = catch_unwind(AssertUnwindSafe(|| run(parts, &mails)));
        let ran = ran.unwrap_or_else(|payload| Err(flow::failure_of_panic(payload, panics::take_facts())));
        if let Err(failure) = ran {
            // A coordinator belongs to subtask 0 of its operator, and fails it.
            reporter.failed(attempt, failure.in_operator(&name));
        }
    };
    let thread = thread::Builder::new().name("coordinator".to_owned()).spawn(run);
    thread.map(drop).map_err(|cause| Failure::new(format!("no thread for a coordinator could be started: {cause}")))
}

fn run(parts: CoordinatorParts, mails: &Receiver<CoordinatorMail>) -> Result<(), Failure> {
    let mut coordinator = build(&parts)?;
    let vertex = &parts.graph.vertices[parts.vertex];
    let operator = vertex.operators[parts.operator].id;
    let mut driver = Driver { parts: &parts, held: None, snapshotted: CheckpointId(0), wake_at: None };
    driver.call(|actions| coordinator.start(vertex.parallelism, actions))?;
    loop {
        let timeout = driver.wake_at.map(|at| at.saturating_duration_since(clock::now()));
        let mail = match timeout {
            Some(timeout) => mails.recv_timeout(timeout),
            None => mails.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match mail {
            Ok(CoordinatorMail::Event { subtask, event }) => {
                driver.call(|actions| coordinator.on_event(subtask, &event, actions))?;
            }
            Ok(CoordinatorMail::Snapshot(checkpoint)) => {
                driver.held.get_or_insert_default();
                driver.snapshotted = checkpoint;
                let state = coordinator.snapshot();
                driver.tell_snapshotted(checkpoint);
                let generation = parts.generation;
                let _ = parts.snapshots.send(CoordinatorSnapshot { generation, operator, checkpoint, state });
            }
            Ok(CoordinatorMail::Release) => {
                let held = driver.held.take().unwrap_or_default();
                held.into_iter().for_each(|(subtask, event)| driver.deliver(subtask, event));
            }
            Err(RecvTimeoutError::Timeout) => {
                driver.wake_at = None;
                driver.call(|actions| coordinator.on_wake(actions))?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

struct Driver<'a> {
    parts: &'a CoordinatorParts,
    /// Events that wait for the release, if a checkpoint is between snapshot and release.
    held: Option<Vec<(u32, Vec<u8>)>>,
    /// The newest checkpoint that it has contributed to.
    snapshotted: CheckpointId,
    wake_at: Option<std::time::Instant>,
}

impl Driver<'_> {
    fn call(&mut self, run: impl FnOnce(&mut CoordinatorActions) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut actions = CoordinatorActions::default();
        run(&mut actions)?;
        for (subtask, event) in actions.events {
            match &mut self.held {
                Some(held) => held.push((subtask, event)),
                None => self.deliver(subtask, event),
            }
        }
        if let Some(pause) = actions.wake_after {
            self.wake_at = Some(clock::now() + pause.max(Duration::from_millis(1)));
        }
        Ok(())
    }

    /// Other workers put the barriers of a checkpoint into their sources only behind what was sent before the snapshot.
    fn tell_snapshotted(&self, checkpoint: CheckpointId) {
        let mut told = Vec::new();
        for (index, subtask) in self.parts.subtasks.iter().enumerate() {
            let SubtaskLine::There(peer) = subtask else { continue };
            if !told.contains(&peer.peer()) {
                told.push(peer.peer());
                peer.send(self.event(index as u32, Direction::Snapshotted { checkpoint }, Vec::new()));
            }
        }
    }

    fn event(&self, subtask: u32, direction: Direction, bytes: Vec<u8>) -> CoordinatorEvent {
        let operator = self.parts.graph.vertices[self.parts.vertex].operators[self.parts.operator].id;
        CoordinatorEvent { generation: self.parts.generation, operator, subtask, direction, bytes }
    }

    fn deliver(&self, index: u32, event: Vec<u8>) {
        let vertex = self.parts.graph.vertices[self.parts.vertex].id;
        match self.parts.subtasks.get(index as usize) {
            Some(SubtaskLine::Here(mailbox)) => {
                mailbox.send(Mail::Task(Subtask { vertex, index }, TaskMail::Event(event)));
            }
            // The barriers of that worker's sources come by another way.
            Some(SubtaskLine::There(peer)) => {
                peer.send(self.event(index, Direction::ToSubtask { after: self.snapshotted }, event));
            }
            None => {}
        }
    }
}

fn build(parts: &CoordinatorParts) -> Result<Box<dyn OperatorCoordinator>, Failure> {
    let vertex = &parts.graph.vertices[parts.vertex];
    let operator = &vertex.operators[parts.operator];
    let factory = operator.coordinator.as_ref();
    let factory = factory.ok_or_else(|| Failure::fatal("the operator has no coordinator"))?;
    let context = RuntimeContext::new(ContextParts {
        operator: operator.id,
        name: operator.name.as_str().into(),
        subtask: 0,
        parallelism: vertex.parallelism,
        max_parallelism: vertex.max_parallelism,
        configuration: Arc::new(parts.graph.configuration.clone()),
        flow: Flow::default().into(),
        services: std::rc::Rc::new(NoServices),
        accumulators: Accumulators::default(),
        metrics: MetricRegistry::default(),
        slot: Arc::new(SlotAccount::unlimited()),
        restored: None,
    });
    let build = Build {
        conf: &operator.conf,
        context,
        outputs: Vec::new(),
        channels: None,
        restored_coordinator: parts.restored.clone(),
    };
    match call_factory(factory, build)? {
        Product::Coordinator(coordinator) => Ok(coordinator),
        _ => Err(Failure::fatal("the job graph names something else as a coordinator")),
    }
}

/// A coordinator has a thread of its own and asks nothing of the runtime.
struct NoServices;

impl Services for NoServices {
    fn waker(&self) -> TaskWaker {
        TaskWaker::new(|| ())
    }

    fn spawn(&self, _: IoTask) {}

    fn send_to_coordinator(&self, _: OperatorId, _: Vec<u8>) {}
}
