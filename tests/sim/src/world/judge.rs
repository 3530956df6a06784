//! What must hold after each event, and at the end.

use std::collections::BTreeSet;

use millstream_model::{
    id::{CheckpointId, ExecutionAttemptId, JobId, Subtask},
    state::{ExecutionState, JobStatus},
};

use super::{At, World};
use crate::{output::Line, store::short};

impl World {
    /// After each event.
    pub(super) fn judge(&mut self) {
        for news in self.store.take_news() {
            self.note(|| news);
        }
        let wrong = self.store.take_violations().into_iter().next();
        let wrong = wrong.or_else(|| {
            let all = self.hosts.iter().enumerate();
            all.filter_map(|(host, it)| Some(format!("host {host}: {}", it.check().err()?))).next()
        });
        if let Some(wrong) = wrong.or_else(|| self.too_many_slots()) {
            self.violated(wrong);
        }
    }

    /// No JobManager gives a slot to two.
    fn too_many_slots(&self) -> Option<String> {
        for job_manager in self.job_managers.values() {
            let slots = job_manager.slots();
            for (id, count) in slots.resources.task_managers() {
                let workers = slots.resources.workers().filter(|(_, worker)| worker.task_manager == id);
                let held: u32 = workers.map(|(_, worker)| worker.slots).sum();
                let doomed = slots.doomed.values().filter(|(of, _)| *of == id);
                let held = held + doomed.map(|(_, slots)| slots).sum::<u32>();
                if held + count.free != count.total {
                    let number = job_manager.number;
                    return Some(format!("JobManager {number}: {held} slots of {count:?} are held"));
                }
            }
        }
        None
    }

    /// An attempt begins: those of its region's older generations that its JobManager can know of must be over.
    pub(super) fn judge_beginning(&mut self, at: At, job: JobId, attempt: ExecutionAttemptId) {
        self.note(|| format!("{} {attempt:?} begins on host {}", short(job), at.host));
        let spec = self.jobs.iter().find(|spec| spec.id == job).expect("workers are of jobs").clone();
        let region = spec.region_of(attempt.subtask);
        let of_others = |alive: &ExecutionAttemptId| spec.region_of(alive.subtask) != region;
        if self
            .hosts
            .iter()
            .flat_map(|host| host.workers.values())
            .any(|running| running.worker.job().id == job && running.worker.alive().iter().any(&of_others))
            && self.begun.iter().any(|(of, begun)| *of == job && begun.subtask == attempt.subtask)
        {
            self.restarts_beside_others += 1;
        }
        if !self.begun.insert((job, attempt)) {
            return self.violated(format!("{}: {attempt:?} begins a second time", short(job)));
        }
        let of =
            |host: usize| self.hosts[host].connection.and_then(|id| self.connections.get(&id)).map(|it| it.job_manager);
        let mine = of(at.host);
        let Some(mine_of) = mine.and_then(|id| self.job_managers.get(&id)) else { return };
        let known: BTreeSet<_> = mine_of.slots().resources.workers().map(|(id, _)| id).collect();
        for (host, other) in self.hosts.iter().enumerate().filter(|(host, _)| of(*host) == mine) {
            for (id, running) in &other.workers {
                if running.worker.job().id != job || !known.contains(id) {
                    continue;
                }
                let mut alive = running.worker.alive().into_iter();
                let older = alive.find(|alive| !of_others(alive) && alive.generation < attempt.generation);
                if let Some(older) = older {
                    return self.violated(format!("{}: {attempt:?} begins while {older:?} runs on {host}", short(job)));
                }
            }
        }
    }

    /// A job is adopted, or a part of it: nothing was deployed for it in this turn, its regions run as a whole or not at all,
    /// and all that it takes over has begun at the generation that is stored for its region.
    pub(super) fn judge_adoption(&mut self, number: u64, job: JobId, has_deployed: bool) {
        if has_deployed {
            return self.violated(format!("{} is adopted and deployed", short(job)));
        }
        // One that was replaced and does not know may think so; nobody hears it.
        if number != self.leader {
            return;
        }
        let spec = self.jobs.iter().find(|spec| spec.id == job).expect("masters are of jobs");
        let Some(record) = self.store.record(job) else { return };
        let master = self.job_managers.get(&number).and_then(|it| it.masters.get(&job));
        let Some(execution) = master.and_then(|master| master.stepped.execution()) else { return };
        let (mut adopted, mut wrong) = (0, None);
        for region in spec.regions() {
            let subtasks = spec.region(region);
            let stored = record.regions.iter().find(|stored| subtasks.contains(&stored.first));
            let stored = stored.map(|stored| stored.generation);
            let current = |subtask: &Subtask| execution.vertex(*subtask).and_then(|vertex| vertex.current.as_ref());
            let is_running =
                |subtask: &&Subtask| current(subtask).is_some_and(|it| it.state() == ExecutionState::Running);
            let running = subtasks.iter().filter(is_running).count();
            adopted += usize::from(running > 0);
            if running != 0 && running != subtasks.len() {
                wrong = Some(format!("{running} of the {} subtasks of region {region:?}", subtasks.len()));
            }
            let foreign = subtasks
                .iter()
                .filter_map(current)
                .find(|it| Some(it.attempt.generation) != stored || !self.begun.contains(&(job, it.attempt)));
            wrong = wrong.or(foreign.map(|it| format!("{:?}, and {stored:?} is stored", it.attempt)));
        }
        self.adopted_in_part += u64::from(adopted > 0 && adopted < spec.regions().len());
        if let Some(wrong) = wrong {
            self.violated(format!("{} is adopted with {wrong}", short(job)));
        }
    }

    pub(super) fn judge_commit(&mut self, job: JobId, sink: u32, checkpoint: CheckpointId, lines: &[Line]) {
        self.note(|| format!("{} sink {sink} commits {} lines of checkpoint {checkpoint}", short(job), lines.len()));
        if self.store.durable(job).is_none_or(|durable| durable < checkpoint) {
            self.violated(format!("{}: checkpoint {checkpoint} is committed and not durable", short(job)));
        }
        if let Err(wrong) = self.output.commit(job, sink, checkpoint, lines) {
            self.violated(format!("{}: {wrong}", short(job)));
        }
    }

    /// When all is healed, and long quiet.
    pub(super) fn judge_end(&mut self) {
        for job in self.jobs.clone() {
            let record = self.store.record(job.id);
            let Some(result) = record.as_ref().and_then(|record| record.result.as_ref()) else {
                let status = self.job_managers.get(&self.leader).and_then(|it| it.masters.get(&job.id));
                let status = status.map(|master| master.stepped.status());
                return self.violated(format!("{} never ends; its JobMaster says {status:?}", short(job.id)));
            };
            match result.status {
                JobStatus::Finished => {
                    if let Err(wrong) = self.output.complete(job.id, &job.source_numbers(), job.records) {
                        return self.violated(format!("{} has finished: {wrong}", short(job.id)));
                    }
                }
                JobStatus::Canceled if self.cancelled.contains(&job.id) => {}
                _ => return self.violated(format!("{} has ended so: {result:?}", short(job.id))),
            }
        }
        for (host, it) in self.hosts.iter().enumerate() {
            if it.table.free() != it.table.total() {
                let held: Vec<_> = it.table.held().collect();
                return self.violated(format!("host {host} still holds {held:?}"));
            }
        }
        let Some(leader) = self.job_managers.get(&self.leader) else {
            return self.violated("nobody leads".to_owned());
        };
        let leaked = leader
            .slots()
            .resources
            .workers()
            .next()
            .map(|(id, worker)| format!("allocation {} leaks: {worker:?}", id.0));
        let known = leader.slots().resources.task_managers().count();
        if let Some(leaked) = leaked {
            return self.violated(leaked);
        }
        if known != self.hosts.len() {
            self.violated(format!("{known} TaskManagers are known of {}", self.hosts.len()));
        }
    }
}
