//! Between JobManagers and TaskManagers.

use millstream_model::{
    id::{AllocationId, LeaderEpoch, TaskManagerId},
    message::{Command, Report},
};
use millstream_slots::{Accepted, SlotTable};

use super::{At, Event, World};
use crate::{
    job_manager::{FromTaskManager, ToTaskManager},
    network::{Stream, Time},
    task_manager::{FIRST_PAUSE, GRACE, OnJobManagerLost, Running},
    worker::Worker,
};

/// A TaskManager's session with a JobManager.
pub(super) struct Connection {
    pub host: usize,
    pub task_manager: TaskManagerId,
    pub job_manager: u64,
    down: Stream<ToTaskManager>,
    up: Stream<FromTaskManager>,
    /// Whether the TaskManager still has it; the JobManager may, for a while, when it has not.
    pub is_open_at_host: bool,
    /// Whether the JobManager does not hear that it was closed.
    pub is_cut: bool,
}

impl World {
    /// How long a message takes.
    pub(super) fn delay(&mut self, host: usize) -> Time {
        let delay = match self.random.u32(0..20) {
            0 => self.random.u64(5_000..200_000),
            _ => self.random.u64(50..5_000),
        };
        self.hosts[host].slowed(self.now, delay)
    }

    fn is_twice(&mut self) -> bool {
        self.random.u32(0..100) < self.faults.duplicates
    }

    pub(super) fn connect(&mut self, host: usize) {
        let at = &self.hosts[host];
        if !at.is_up || at.connection.is_some() {
            return;
        }
        // One that was replaced may answer still.
        let replaced = self.leader.checked_sub(1).filter(|it| self.job_managers.contains_key(it));
        let leader = replaced.filter(|_| self.random.u32(0..4) == 0).unwrap_or(self.leader);
        let at = &self.hosts[host];
        let is_there = self.job_managers.contains_key(&leader) && self.is_frozen(leader).is_none();
        if !is_there || at.is_partitioned(self.now) {
            let pause = self.hosts[host].next_pause();
            return self.after(pause, Event::Connect(host));
        }
        self.last_connection += 1;
        self.last_id += 1;
        let (number, id) = (self.last_connection, TaskManagerId(self.last_id));
        let (down, up) = (Stream::default(), Stream::default());
        let connection =
            Connection { host, task_manager: id, job_manager: leader, down, up, is_open_at_host: true, is_cut: false };
        self.connections.insert(number, connection);
        let at = &mut self.hosts[host];
        (at.id, at.connection) = (id, Some(number));
        let (resource, slots, held) = (at.resource, at.table.total(), at.holdings());
        self.note(|| format!("host {host} registers with JobManager {leader}"));
        self.send_up(number, FromTaskManager::Registration(id, resource, slots, held));
    }

    pub(super) fn send_down(&mut self, number: u64, message: ToTaskManager) {
        let Some(host) = self.connections.get(&number).map(|connection| connection.host) else { return };
        let delay = self.delay(host);
        let may_repeat = match &message {
            ToTaskManager::Registered(_) => false,
            ToTaskManager::Request(_) | ToTaskManager::Release(..) => true,
            ToTaskManager::Command(_, command) => {
                !matches!(command.command, Command::TriggerCheckpoint { .. } | Command::SnapshotCoordinators { .. })
            }
        };
        let times = if may_repeat && self.is_twice() { 2 } else { 1 };
        for _ in 0..times {
            let connection = self.connections.get_mut(&number).expect("it was there above");
            let at = connection.down.push(message.clone(), self.now, delay);
            self.at(at, Event::ToHost(number));
        }
    }

    pub(super) fn send_up(&mut self, number: u64, message: FromTaskManager) {
        let Some(host) = self.connections.get(&number).map(|connection| connection.host) else { return };
        let delay = self.delay(host);
        let may_repeat = match &message {
            FromTaskManager::Registration(..) => false,
            FromTaskManager::Report(..) | FromTaskManager::Freed(_) => true,
        };
        let times = if may_repeat && self.is_twice() { 2 } else { 1 };
        for _ in 0..times {
            let connection = self.connections.get_mut(&number).expect("it was there above");
            let at = connection.up.push(message.clone(), self.now, delay);
            self.at(at, Event::ToJobManager(number));
        }
    }

    pub(super) fn reach_host(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number).filter(|it| it.is_open_at_host) else { return };
        let host = connection.host;
        if self.hosts[host].is_partitioned(self.now) {
            let until = self.hosts[host].partitioned_until;
            return self.at(until, Event::ToHost(number));
        }
        while let Some(connection) = self.connections.get_mut(&number).filter(|it| it.is_open_at_host)
            && let Some(message) = connection.down.pop(self.now)
        {
            self.on_message_at_host(host, message);
        }
    }

    fn on_message_at_host(&mut self, host: usize, message: ToTaskManager) {
        match message {
            ToTaskManager::Registered(epoch) => self.on_registered_at_host(host, epoch),
            ToTaskManager::Request(request) => {
                let at = At { host, allocation: request.id };
                self.note(|| format!("host {host}: {request:?}"));
                match self.hosts[host].table.request(request.id, request.allocation) {
                    Ok(Accepted::Already) => {}
                    Ok(Accepted::New) => {
                        let job = self.jobs.iter().find(|job| job.id == request.allocation.job);
                        let worker =
                            Worker::new(job.expect("only jobs that are there get slots").clone(), request.worker);
                        let running = Running { worker, is_ready: false, is_ending: false, is_cut_off: false };
                        self.hosts[host].workers.insert(request.id, running);
                        let delay = self.random.u64(5_000..200_000);
                        let delay = self.hosts[host].slowed(self.now, delay);
                        self.after(delay, Event::Ready(at));
                    }
                    // What was about to come up when the last JobManager went is told to nobody, and ends soon.
                    Err(_) if self.hosts[host].workers.values().any(|it| it.is_ending && !it.is_ready) => {
                        let connection = self.hosts[host].connection.expect("the message came by one");
                        self.send_up(connection, FromTaskManager::Freed(request.id));
                    }
                    Err(refused) => self.violated(format!("host {host} refuses slots: {refused}")),
                }
            }
            ToTaskManager::Command(allocation, command) => {
                let at = At { host, allocation };
                let Some(running) =
                    self.hosts[host].workers.get(&allocation).filter(|it| it.is_ready && !it.is_cut_off)
                else {
                    return;
                };
                let job = running.worker.job().id;
                self.note(|| format!("host {host} allocation {}: {}", allocation.0, named(&command.command)));
                let directory = self.directory(job);
                self.with_worker(at, |worker| worker.on_command(*command, &directory));
            }
            ToTaskManager::Release(allocation, at_once) => {
                if let Some(running) = self.hosts[host].workers.get_mut(&allocation).filter(|it| !it.is_cut_off) {
                    running.is_cut_off = true;
                    if at_once {
                        return self.kill(host, allocation);
                    }
                    // One that was told to end may do so before.
                    self.after(GRACE, Event::Exited(At { host, allocation }));
                }
            }
        }
    }

    /// A JobManager has answered. One that is replaced is left alone: what runs here is not its own any more.
    fn on_registered_at_host(&mut self, host: usize, epoch: LeaderEpoch) {
        let at = &mut self.hosts[host];
        if at.on_lost == OnJobManagerLost::KeepWorkers && at.epoch.is_some_and(|highest| epoch < highest) {
            self.note(|| format!("host {host} refuses a JobManager that was replaced"));
            return self.part(host);
        }
        (at.epoch, at.lost_at, at.pause) = (Some(epoch), None, FIRST_PAUSE);
        at.is_registered = true;
    }

    /// A worker's process is killed; its slots are held until it has gone.
    fn kill(&mut self, host: usize, allocation: AllocationId) {
        if let Some(running) = self.hosts[host].workers.get_mut(&allocation) {
            (running.is_ending, running.is_cut_off) = (true, true);
            let delay = self.delay(host);
            self.after(delay, Event::Exited(At { host, allocation }));
        }
    }

    pub(super) fn reach_job_manager(&mut self, number: u64) {
        let Some(connection) = self.connections.get(&number) else { return };
        let (host, job_manager, id) = (connection.host, connection.job_manager, connection.task_manager);
        if let Some(until) = self.is_frozen(job_manager) {
            return self.at(until, Event::ToJobManager(number));
        }
        if self.hosts[host].is_partitioned(self.now) {
            let until = self.hosts[host].partitioned_until;
            return self.at(until, Event::ToJobManager(number));
        }
        while let Some(message) = self.connections.get_mut(&number).and_then(|it| it.up.pop(self.now)) {
            self.note(|| format!("JobManager {job_manager}, of host {host}: {}", named_report(&message)));
            let now = self.now;
            let wishes = self.with_job_manager(job_manager, |it| it.on_message(number, id, message, now));
            self.grant(job_manager, wishes.unwrap_or_default());
        }
    }

    /// The TaskManager has no connection any more.
    pub(super) fn host_loses(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number).filter(|it| it.is_open_at_host) else { return };
        let host = connection.host;
        self.note(|| format!("host {host} has lost its JobManager"));
        let now = self.now;
        let at = &mut self.hosts[host];
        match at.on_lost {
            // It never had this one, and waits on.
            _ if !at.is_registered => {}
            OnJobManagerLost::EndWorkers => self.end_all_workers(host),
            OnJobManagerLost::KeepWorkers => {
                at.lost_at = Some(now);
                let coming = at.workers.iter().filter(|(_, running)| !running.is_ready);
                let coming: Vec<_> = coming.map(|(allocation, _)| *allocation).collect();
                coming.into_iter().for_each(|allocation| self.kill(host, allocation));
                self.after(self.faults.patience, Event::Abandoned { host, lost_at: now });
            }
        }
        self.part(host);
    }

    /// The TaskManager closes its connection, and looks for another JobManager.
    fn part(&mut self, host: usize) {
        let at = &mut self.hosts[host];
        at.is_registered = false;
        let Some(number) = at.connection.take() else { return };
        let pause = at.next_pause();
        self.after(pause, Event::Connect(host));
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_open_at_host = false;
            if connection.is_cut {
                return;
            }
        }
        let delay = self.delay(host);
        self.after(delay, Event::JobManagerLoses { connection: number, by_timeout: false });
    }

    /// No JobManager has come in time: the TaskManager ends, and its workers with it. Somebody starts another.
    pub(super) fn on_abandoned(&mut self, host: usize, lost_at: Time) {
        let at = &self.hosts[host];
        if at.is_up && at.lost_at == Some(lost_at) {
            self.note(|| format!("host {host} gives up waiting for a JobManager"));
            let back = self.random.u64(10_000..5_000_000);
            self.task_manager_ends(host, back);
        }
    }

    /// Its process is gone, and another starts after a while.
    pub(super) fn task_manager_ends(&mut self, host: usize, back: Time) {
        self.end_all_workers(host);
        let at = &mut self.hosts[host];
        (at.is_up, at.is_registered, at.epoch, at.lost_at, at.pause) = (false, false, None, None, FIRST_PAUSE);
        if let Some(number) = at.connection.take() {
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.is_open_at_host = false;
            }
            let delay = self.random.u64(100..20_000);
            self.after(delay, Event::JobManagerLoses { connection: number, by_timeout: false });
        }
        self.after(back, Event::HostUp(host));
    }

    /// The JobManager has no connection any more.
    pub(super) fn job_manager_loses(&mut self, number: u64, by_timeout: bool) {
        let Some(connection) = self.connections.get(&number) else { return };
        let (host, job_manager, id) = (connection.host, connection.job_manager, connection.task_manager);
        let late = Event::JobManagerLoses { connection: number, by_timeout };
        if let Some(until) = self.is_frozen(job_manager) {
            return self.at(until, late);
        }
        // That the other side has closed it has to get through.
        if !by_timeout && self.hosts[host].is_partitioned(self.now) {
            let until = self.hosts[host].partitioned_until;
            return self.at(until, late);
        }
        if connection.is_open_at_host {
            let delay = self.delay(host);
            self.after(delay, Event::HostLoses(number));
            // It is closed there, too, when that has arrived; messages that come until then find nobody.
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.up = Stream::default();
            }
        }
        self.note(|| format!("JobManager {job_manager} has lost host {host}"));
        self.with_job_manager(job_manager, |it| {
            if it.connections.get(&id) == Some(&number) {
                it.on_gone(id);
            }
        });
        if !self.connections[&number].is_open_at_host {
            self.connections.remove(&number);
        }
    }

    pub(super) fn end_all_workers(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        host.workers.clear();
        host.table = SlotTable::new(host.table.total());
    }
}

/// A command in a trace: without what is different each time, such as tokens and paths.
fn named(command: &Command) -> String {
    match command {
        Command::Deploy { deployment, .. } => {
            let restored = deployment.restore.as_ref().map_or(0, |checkpoint| checkpoint.id.0);
            format!("deploy generation {} from {restored}", deployment.generation.0)
        }
        other => format!("{other:?}"),
    }
}

fn named_report(message: &FromTaskManager) -> String {
    match message {
        FromTaskManager::Report(allocation, message) => match &message.report {
            Report::CheckpointAck { attempt, checkpoint, .. } => {
                format!("allocation {}: {attempt:?} has stored {checkpoint}", allocation.0)
            }
            Report::CheckpointDeclined { checkpoint, .. } => {
                format!("allocation {}: declines {checkpoint}", allocation.0)
            }
            Report::Task { attempt, state, .. } => format!("allocation {}: {attempt:?} is {state:?}", allocation.0),
            other => format!("allocation {}: {other:?}", allocation.0),
        },
        other => format!("{other:?}"),
    }
}
