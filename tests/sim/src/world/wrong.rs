//! How each fault happens.

use super::{At, Event, World};
use crate::{faults::Fault, network::HEARTBEAT_TIMEOUT, task_manager::moment};

impl World {
    pub(super) fn goes_wrong(&mut self, fault: Fault) {
        self.note(|| format!("FAULT {fault:?}"));
        match fault {
            Fault::JobManagerKilled { back } => {
                let leader = self.leader;
                self.job_manager_ends(leader);
                self.after(back, Event::Elect { after: leader });
            }
            Fault::JobManagerFrozen { length, successor } => {
                let (leader, until) = (self.leader, self.now + length);
                let Some(job_manager) = self.job_managers.get_mut(&leader) else { return };
                job_manager.frozen_until = job_manager.frozen_until.max(until);
                if let Some(after) = successor {
                    self.after(after, Event::Elect { after: leader });
                }
                if length > HEARTBEAT_TIMEOUT {
                    let all = self.connections.iter().filter(|(_, it)| it.job_manager == leader);
                    for connection in all.map(|(id, _)| *id).collect::<Vec<_>>() {
                        let jitter = self.random.u64(0..500_000);
                        self.after(HEARTBEAT_TIMEOUT + jitter, Event::HostLoses(connection));
                    }
                }
            }
            Fault::TaskManagerKilled { host, back } => {
                if self.hosts[host].is_up {
                    self.task_manager_ends(host, back);
                }
            }
            Fault::WorkerKilled { host } => {
                let all: Vec<_> = self.hosts[host].workers.keys().copied().collect();
                if let Some(allocation) = self.random.choice(all) {
                    self.worker_ends(At { host, allocation });
                }
            }
            Fault::TaskFails { host } => {
                let workers = &self.hosts[host].workers;
                let alive = workers.iter().flat_map(|(allocation, running)| {
                    running.worker.alive().into_iter().map(|attempt| (*allocation, attempt))
                });
                let all: Vec<_> = alive.collect();
                if let Some((allocation, attempt)) = self.random.choice(all) {
                    self.with_worker(At { host, allocation }, |worker| worker.fail(attempt, "a function has failed"));
                }
            }
            Fault::Partition { host, length } => {
                let until = self.now + length;
                self.hosts[host].partitioned_until = self.hosts[host].partitioned_until.max(until);
                if length > HEARTBEAT_TIMEOUT
                    && let Some(connection) = self.hosts[host].connection
                {
                    let (here, there) = (self.random.u64(0..500_000), self.random.u64(0..500_000));
                    self.after(HEARTBEAT_TIMEOUT + here, Event::HostLoses(connection));
                    let lost = Event::JobManagerLoses { connection, by_timeout: true };
                    self.after(HEARTBEAT_TIMEOUT + there, lost);
                }
            }
            Fault::ConnectionLost { host } => {
                if let Some(connection) = self.hosts[host].connection {
                    let (here, there) = (self.random.u64(0..50_000), self.random.u64(0..50_000));
                    self.after(here, Event::HostLoses(connection));
                    self.after(there, Event::JobManagerLoses { connection, by_timeout: false });
                }
            }
            Fault::ConnectionCut { host, noticed } => {
                if let Some(number) = self.hosts[host].connection
                    && let Some(connection) = self.connections.get_mut(&number)
                {
                    connection.is_cut = true;
                    let here = self.random.u64(0..50_000);
                    self.after(here, Event::HostLoses(number));
                    self.after(noticed, Event::JobManagerLoses { connection: number, by_timeout: true });
                }
            }
            Fault::Slow { host, factor, length } => {
                self.hosts[host].slowness = factor;
                self.hosts[host].slow_until = self.now + length;
            }
            Fault::StillBirths { host, length } => self.hosts[host].still_births_until = self.now + length,
            Fault::Store(fault) => self.store.inject(fault),
            Fault::Cancel { job } => {
                let Some(job) = self.jobs.get(job).map(|job| job.id) else { return };
                let leader = self.leader;
                if self.is_frozen(leader).is_some() {
                    return;
                }
                let now = self.now;
                let known = self.with_job_manager(leader, |it| {
                    it.masters.get_mut(&job).map(|master| master.stepped.on_cancel(moment(now))).is_some()
                });
                if known == Some(true) {
                    self.cancelled.insert(job);
                }
            }
        }
    }
}
