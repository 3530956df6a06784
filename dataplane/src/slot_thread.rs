//! The thread of a slot: mail, then a step of every task in turns, then sleep if nobody has anything to do.
//!
//! Where tasks exchange records with other workers it drives the network besides: after steps, so that what they have
//! written leaves at once, and instead of sleeping.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use millstream_api::{
    context::{Accumulators, IoTask, Services, TaskWaker},
    flow::{self, Flow},
    metrics::MetricRegistry,
    panics,
    state::{Section, account::SlotAccount},
};
use millstream_model::{
    config::{BufferTimeout, Validation},
    fault::Failure,
    id::{ExecutionAttemptId, OperatorId, Subtask},
    job_graph::{JobGraph, JobVertex},
    log::{self, LogTask},
    state::ExecutionState,
};
use millstream_shuffle::{channel::ChannelSender, exchange::SlotDrive, wake::Waker};
use tokio::runtime::Handle;

use crate::{
    chain::{Chain, ChainParts},
    clock,
    coordinator::CoordinatorLine,
    input::GateInput,
    metrics::TaskCounters,
    output::Limits,
    processors::Processors,
    report::Reporter,
    snapshot::Uploader,
    task::{Pause, Step, Task, TaskMail, TaskParts, Work},
    wiring::TaskGate,
};

/// A thread that always has something to do looks at the network as often as this.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// All that a slot thread needs to build one task; it can be sent to the thread, the task itself cannot.
pub(crate) struct Blueprint {
    pub(crate) graph: Arc<JobGraph>,
    pub(crate) vertex: usize,
    pub(crate) attempt: ExecutionAttemptId,
    pub(crate) senders: HashMap<usize, Vec<ChannelSender>>,
    pub(crate) gate: Option<TaskGate>,
    pub(crate) restored: Option<HashMap<OperatorId, Vec<Section>>>,
    pub(crate) coordinators: HashMap<OperatorId, CoordinatorLine>,
    pub(crate) counters: Arc<TaskCounters>,
    pub(crate) metrics: MetricRegistry,
    pub(crate) reporter: Reporter,
    pub(crate) uploader: Uploader,
    /// `None` if no task here has to do with other workers.
    pub(crate) drive: Option<SlotDrive>,
    /// Of the state in the slot.
    pub(crate) account: Arc<SlotAccount>,
    pub(crate) settings: Settings,
    /// Which of the region's deployments this is.
    pub(crate) attempt_number: u64,
    pub(crate) sign: LifeSign,
}

/// What each task of a deployment holds for as long as it lives: when all are gone its tasks are.
#[derive(Clone)]
pub(crate) struct LifeSign {
    _alive: Sender<Infallible>,
}

impl LifeSign {
    /// One for the tasks of a deployment, and what waits for the end of all of them.
    pub(crate) fn new() -> (LifeSign, Receiver<Infallible>) {
        let (alive, gone) = bounded(0);
        (LifeSign { _alive: alive }, gone)
    }
}

/// What the configuration says about tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) validation: Validation,
    pub(crate) limits: Limits,
    pub(crate) buffer_timeout: BufferTimeout,
    pub(crate) step_warning: Duration,
}

/// A mail to a slot's thread.
pub(crate) enum Mail {
    Start(Box<Blueprint>),
    Task(Subtask, TaskMail),
    /// Look for news so long before sleeping; not at all if it is zero.
    Spin(Duration),
    /// End when the last task has ended. Not left to the mailbox being dropped: coordinators hold it, too, and end later.
    End,
}

/// How others reach a slot's thread.
#[derive(Clone)]
pub(crate) struct SlotMailbox {
    mails: Sender<Mail>,
    pub(crate) waker: Arc<Waker>,
}

impl SlotMailbox {
    pub(crate) fn send(&self, mail: Mail) {
        // A thread that has ended has no tasks that a mail could be for.
        let _ = self.mails.send(mail);
        self.waker.wake();
    }
}

/// Starts the thread of a slot.
pub(crate) fn start(
    name: &str,
    nth: usize,
    processors: &Processors,
    runtime: Handle,
) -> Result<(SlotMailbox, JoinHandle<()>), Failure> {
    let (sender, mails) = unbounded();
    let waker = Arc::new(Waker::default());
    let mailbox = SlotMailbox { mails: sender, waker: waker.clone() };
    let processors = processors.clone();
    let run = move || {
        waker.bind();
        processors.pin(nth);
        panics::watch_this_thread();
        precise_timers();
        let (tasks, looked) = (Vec::new(), clock::now());
        let thread =
            SlotThread { mails, waker, runtime, tasks, is_ending: false, spin: Duration::ZERO, drive: None, looked };
        thread.run();
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    let thread = thread.map_err(|cause| Failure::new(format!("no thread for a slot could be started: {cause}")))?;
    Ok((mailbox, thread))
}

/// Lets the kernel end this thread's sleeps on time: by default it may be 50 µs late.
fn precise_timers() {
    let _ = nix::sys::prctl::set_timerslack(1);
}

struct SlotThread {
    mails: Receiver<Mail>,
    waker: Arc<Waker>,
    runtime: Handle,
    tasks: Vec<Task>,
    is_ending: bool,
    spin: Duration,
    drive: Option<SlotDrive>,
    /// At the network, last.
    looked: Instant,
}

impl SlotThread {
    fn run(mut self) {
        loop {
            self.waker.clear();
            self.read_mails();
            if self.is_ending && self.tasks.is_empty() {
                return;
            }
            let mut ready = false;
            let mut until: Option<Instant> = None;
            let mut index = 0;
            while index < self.tasks.len() {
                match self.tasks[index].step() {
                    Step::Ready => ready = true,
                    Step::Wait(time) => until = until.into_iter().chain(time).min(),
                    Step::Done => {
                        self.tasks.swap_remove(index);
                        continue;
                    }
                }
                index += 1;
            }
            if ready {
                self.look_at_network();
            } else {
                self.sleep(until);
            }
        }
    }

    fn read_mails(&mut self) {
        while let Ok(mail) = self.mails.try_recv() {
            match mail {
                Mail::Start(blueprint) => self.start_task(*blueprint),
                Mail::Task(subtask, mail) => self.deliver(subtask, mail),
                Mail::Spin(spin) => self.spin = spin,
                Mail::End => self.is_ending = true,
            }
        }
    }

    fn deliver(&mut self, subtask: Subtask, mail: TaskMail) {
        let task = self.tasks.iter().position(|task| task.attempt.subtask == subtask);
        if let Some(index) = task
            && self.tasks[index].on_mail(mail) == Step::Done
        {
            self.tasks.swap_remove(index);
        }
    }

    fn start_task(&mut self, blueprint: Blueprint) {
        let (attempt, reporter) = (blueprint.attempt, blueprint.reporter.clone());
        if self.drive.is_none()
            && let Some(drive) = &blueprint.drive
        {
            drive.bind(&self.waker);
            self.drive = Some(drive.clone());
        }
        reporter.state(attempt, ExecutionState::Initializing);
        let waker = self.waker.clone();
        let runtime = self.runtime.clone();
        let built = catch_unwind(AssertUnwindSafe(|| build(blueprint, waker, runtime)));
        let built = built.unwrap_or_else(|payload| Err(flow::failure_of_panic(payload, panics::take_facts())));
        match built {
            Ok(task) => {
                reporter.state(attempt, ExecutionState::Running);
                self.tasks.push(task);
            }
            Err(failure) => reporter.failed(attempt, failure),
        }
    }

    /// Sends what the last steps have written, and takes in what has arrived meanwhile.
    fn look_at_network(&mut self) {
        let Some(drive) = &self.drive else { return };
        let now = clock::now();
        if drive.is_called() || now - self.looked >= LOOK_EVERY {
            drive.turn();
            self.looked = now;
        }
    }

    fn sleep(&self, until: Option<Instant>) {
        let start = clock::now();
        if !self.spin.is_zero() {
            let spin_end = until.map_or(start + self.spin, |until| until.min(start + self.spin));
            while clock::now() < spin_end {
                self.drive.iter().for_each(SlotDrive::turn);
                if self.waker.is_notified() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        let timeout = until.map(|until| until.saturating_duration_since(clock::now()));
        if timeout != Some(Duration::ZERO) && !self.drive.as_ref().is_some_and(|drive| drive.wait(&self.waker, until)) {
            self.waker.park(timeout);
        }
    }
}

fn build(blueprint: Blueprint, waker: Arc<Waker>, runtime: Handle) -> Result<Task, Failure> {
    let Blueprint { graph, vertex, attempt, senders, gate, restored, coordinators, .. } = blueprint;
    let log_task = Arc::new(log_task(&graph.vertices[vertex], attempt.subtask.index, blueprint.attempt_number));
    let _entered = log::context::enter(&log_task);
    let flow = Rc::new(Flow::default());
    flow.set_now_millis(clock::wall_millis());
    let accumulators = Accumulators::default();
    let woken = Arc::new(AtomicBool::new(false));
    let (subtask, own) = (attempt.subtask.index, log_task.clone());
    let services = TaskServices { waker, woken: woken.clone(), runtime, coordinators, subtask, log_task: own };
    let chain = ChainParts {
        graph: &graph,
        vertex,
        subtask: attempt.subtask.index,
        senders,
        restored,
        flow: flow.clone(),
        services: Rc::new(services),
        accumulators: accumulators.clone(),
        metrics: blueprint.metrics.clone(),
        account: blueprint.account,
        counters: blueprint.counters.clone(),
        limits: blueprint.settings.limits,
    }
    .build()?;
    let work = match (chain, gate) {
        (Chain::Source(source), _) => Work::Source { source, queue: VecDeque::new(), pause: Pause::default() },
        (Chain::Head(head), Some(gate)) => {
            Work::Gate { head, input: Box::new(GateInput::new(gate, blueprint.settings.validation)) }
        }
        (Chain::Head(_), None) => return Err(Failure::fatal("a task without a source needs input channels")),
    };
    Ok(Task::new(TaskParts {
        attempt,
        name: graph.vertices[vertex].name.clone(),
        log_task,
        work,
        woken,
        flow,
        accumulators,
        counters: blueprint.counters,
        reporter: blueprint.reporter,
        uploader: blueprint.uploader,
        buffer_timeout: blueprint.settings.buffer_timeout,
        step_warning: blueprint.settings.step_warning,
        sign: blueprint.sign,
    }))
}

fn log_task(vertex: &JobVertex, subtask: u32, attempt: u64) -> LogTask {
    LogTask {
        vertex: vertex.id.to_string(),
        name: vertex.name.clone(),
        subtask,
        parallelism: vertex.parallelism,
        attempt,
    }
}

/// What a task has spawned: what it logs belongs to the task as well.
struct OfTask {
    log_task: Arc<LogTask>,
    task: IoTask,
}

impl Future for OfTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let _entered = log::context::enter(&self.log_task);
        self.task.as_mut().poll(context)
    }
}

/// What the runtime does for the operators of one task.
struct TaskServices {
    waker: Arc<Waker>,
    /// Says that a wake is about this task.
    woken: Arc<AtomicBool>,
    runtime: Handle,
    coordinators: HashMap<OperatorId, CoordinatorLine>,
    subtask: u32,
    log_task: Arc<LogTask>,
}

impl Services for TaskServices {
    fn waker(&self) -> TaskWaker {
        let (waker, woken) = (self.waker.clone(), self.woken.clone());
        TaskWaker::new(move || {
            woken.store(true, Ordering::SeqCst);
            waker.wake();
        })
    }

    fn spawn(&self, task: IoTask) {
        self.runtime.spawn(OfTask { log_task: self.log_task.clone(), task });
    }

    fn send_to_coordinator(&self, operator: OperatorId, event: Vec<u8>) {
        match self.coordinators.get(&operator) {
            Some(line) => line.send(self.subtask, event),
            None => flow::fail(Failure::fatal("the operator has no coordinator")),
        }
    }
}
