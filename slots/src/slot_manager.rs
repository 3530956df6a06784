//! The cluster's slots: which TaskManagers there are, what jobs need, and who gets what. The ResourceManager's decider,
//! Flink's `SlotManager`.
//!
//! ```text
//!  require(job, n) ──┐                                ┌──► SlotRequest ──► TaskManager
//!  on_registered ────┼──► SlotManager::allocate ──────┤
//!  on_freed, on_gone ┘   (what is missing, at once)   └──► nothing, if it does not fit
//! ```
//! Requirements are declarative: a job says how many slots it needs in all, and whatever it loses is found again. A job
//! gets all that it misses or nothing, so that two jobs never hold halves that neither can use; one that does not fit
//! yet keeps no other from what is free. The TaskManager is the source of truth about what it holds; what is asked of it is
//! counted as held from then on, until it says otherwise.
//!
//! What a job holds of a TaskManager is one allocation, which never changes: its worker has the memory of so many slots for
//! its life. Where a job misses some and only TaskManagers that it has a worker of have them, that worker is given up
//! ([`SlotManager::retire`]), and when it has gone, its slots are asked for anew, together with the others.
//!
//! **Invariant:** a slot belongs to at most one job, what is held of a TaskManager never exceeds its slots, and a job is
//! never given slots of one that it holds some of.

use std::collections::BTreeMap;

use millstream_model::id::{AllocationId, JobId, TaskManagerId};

/// Slots of one TaskManager for one job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocation {
    pub job: JobId,
    /// How many.
    pub slots: u32,
}

/// What a TaskManager is to be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRequest {
    pub task_manager: TaskManagerId,
    pub id: AllocationId,
    pub allocation: Allocation,
}

/// Which slots are taken first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Spread {
    /// Those of as few TaskManagers as possible.
    #[default]
    Pack,
    /// Those of the TaskManagers with the smallest share in use: Flink's `cluster.evenly-spread-out-slots`.
    Evenly,
}

/// A TaskManager's slots.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Slots {
    total: u32,
    free: u32,
    held: BTreeMap<AllocationId, Allocation>,
}

impl Slots {
    /// What a job holds of them.
    fn held_by(&self, job: JobId) -> impl Iterator<Item = AllocationId> {
        self.held.iter().filter(move |(_, held)| held.job == job).map(|(id, _)| *id)
    }

    fn are_held_by(&self, job: JobId) -> bool {
        self.held_by(job).next().is_some()
    }
}

/// How many slots a TaskManager has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotCount {
    pub total: u32,
    pub free: u32,
}

/// The decider.
#[derive(Clone, Debug, Default)]
pub struct SlotManager {
    spread: Spread,
    task_managers: BTreeMap<TaskManagerId, Slots>,
    /// Sums of what is in `task_managers`, so that a match looks only at what can change: all free slots, and those that
    /// each job holds.
    free: u64,
    held_by: BTreeMap<JobId, u32>,
    /// How many slots each job needs, in the order in which jobs came.
    required: Vec<(JobId, u32)>,
    /// Held, and given up: their jobs get nothing until they are free.
    retiring: BTreeMap<AllocationId, JobId>,
}

impl SlotManager {
    pub fn new(spread: Spread) -> SlotManager {
        SlotManager { spread, ..SlotManager::default() }
    }

    /// A TaskManager is there, with all its slots free.
    ///
    /// # Panics
    /// If it was there before: its id is of one process and one connection.
    pub fn on_registered(&mut self, task_manager: TaskManagerId, slots: u32) {
        let fresh = Slots { total: slots, free: slots, held: BTreeMap::new() };
        let before = self.task_managers.insert(task_manager, fresh);
        assert!(before.is_none(), "TaskManager {task_manager} has registered twice");
        self.free += u64::from(slots);
    }

    /// Who is known to hold one of these. A TaskManager that registers and says that it holds them was there before under
    /// that id, and its loss was not noticed yet: until it is taken for gone, its slots would be counted twice.
    pub fn holders(&self, ids: &[AllocationId]) -> Vec<TaskManagerId> {
        let holds = |slots: &Slots| ids.iter().any(|id| slots.held.contains_key(id));
        self.task_managers.iter().filter(|(_, slots)| holds(slots)).map(|(id, _)| *id).collect()
    }

    /// A TaskManager that has just registered says that it holds this still. It is taken as it is.
    ///
    /// # Panics
    /// If it is not there, or has not so many slots, or [another](SlotManager::holders) holds it.
    pub fn on_held(&mut self, task_manager: TaskManagerId, id: AllocationId, allocation: Allocation) {
        assert!(self.holders(&[id]).is_empty(), "allocation {id} is held twice");
        let of = self.task_managers.get_mut(&task_manager).expect("it has registered");
        assert!(allocation.slots <= of.free, "TaskManager {task_manager} holds more than it has");
        of.held.insert(id, allocation);
        of.free -= allocation.slots;
        self.free -= u64::from(allocation.slots);
        *self.held_by.entry(allocation.job).or_default() += allocation.slots;
    }

    /// A TaskManager is gone; returns what jobs held of it.
    pub fn on_gone(&mut self, task_manager: TaskManagerId) -> Vec<(AllocationId, Allocation)> {
        let Some(gone) = self.task_managers.remove(&task_manager) else { return Vec::new() };
        self.free -= u64::from(gone.free);
        gone.held.values().for_each(|lost| self.on_lost(*lost));
        self.retiring.retain(|id, _| !gone.held.contains_key(id));
        gone.held.into_iter().collect()
    }

    /// A TaskManager says that an allocation holds nothing any more; what it was, if it was any.
    pub fn on_freed(&mut self, task_manager: TaskManagerId, id: AllocationId) -> Option<Allocation> {
        let slots = self.task_managers.get_mut(&task_manager)?;
        let freed = slots.held.remove(&id)?;
        slots.free += freed.slots;
        self.free += u64::from(freed.slots);
        self.retiring.remove(&id);
        self.on_lost(freed);
        Some(freed)
    }

    /// A job holds so many fewer.
    fn on_lost(&mut self, Allocation { job, slots }: Allocation) {
        let held = self.held_by.get_mut(&job).expect("what is held is counted");
        *held -= slots;
        if *held == 0 {
            self.held_by.remove(&job);
        }
    }

    /// A job needs `slots` in all from now on; with 0 it needs nothing and is forgotten. What it holds beyond that stays
    /// with it until it is freed.
    pub fn require(&mut self, job: JobId, slots: u32) {
        match self.required.iter_mut().find(|(known, _)| *known == job) {
            Some((_, required)) => *required = slots,
            None => self.required.push((job, slots)),
        }
        self.required.retain(|(_, slots)| *slots > 0);
    }

    /// Gives out what is free to those who miss something, earlier jobs first. `new_id` makes ids that were never used.
    pub fn allocate(&mut self, mut new_id: impl FnMut() -> AllocationId) -> Vec<SlotRequest> {
        let mut requests = Vec::new();
        for (job, required) in self.required.clone() {
            let missing = required.saturating_sub(self.held_by(job));
            if missing == 0 || u64::from(missing) > self.free || self.is_retiring(job) {
                continue;
            }
            for (task_manager, slots) in self.choose(job, missing) {
                let (id, allocation) = (new_id(), Allocation { job, slots });
                let of = self.task_managers.get_mut(&task_manager).expect("it was chosen from those");
                let before = of.held.insert(id, allocation);
                assert!(before.is_none(), "allocation {id} was used before");
                of.free -= slots;
                self.free -= u64::from(slots);
                *self.held_by.entry(job).or_default() += slots;
                requests.push(SlotRequest { task_manager, id, allocation });
            }
        }
        requests
    }

    /// Gives up what jobs hold of TaskManagers that have more slots for them, where there are not enough elsewhere: the
    /// workers that are returned are to be ended. To be asked for when [`SlotManager::allocate`] has given what it can.
    pub fn retire(&mut self) -> Vec<(TaskManagerId, AllocationId)> {
        let mut retired = Vec::new();
        for (job, required) in self.required.clone() {
            let missing = required.saturating_sub(self.held_by(job));
            if missing == 0 || u64::from(missing) > self.free || self.is_retiring(job) {
                continue;
            }
            let (mut own, elsewhere): (Vec<_>, Vec<_>) =
                self.task_managers.iter().filter(|(_, slots)| slots.free > 0).partition(|(_, of)| of.are_held_by(job));
            let elsewhere: u64 = elsewhere.iter().map(|(_, slots)| u64::from(slots.free)).sum();
            let mut wanted = u64::from(missing).saturating_sub(elsewhere);
            // As few workers as possible.
            own.sort_by_key(|(_, slots)| std::cmp::Reverse(slots.free));
            for (task_manager, slots) in own {
                if wanted == 0 {
                    break;
                }
                wanted = wanted.saturating_sub(slots.free.into());
                self.retiring.extend(slots.held_by(job).map(|id| (id, job)));
                retired.extend(slots.held_by(job).map(|id| (*task_manager, id)));
            }
        }
        retired
    }

    /// Whether a job waits for slots that it has given up.
    fn is_retiring(&self, job: JobId) -> bool {
        self.retiring.values().any(|of| *of == job)
    }

    /// How many slots of which TaskManagers make up `missing`, of those that a job holds nothing of; nothing, if they have not
    /// so many.
    fn choose(&self, job: JobId, missing: u32) -> Vec<(TaskManagerId, u32)> {
        let usable = self.task_managers.iter().filter(|(_, slots)| slots.free > 0 && !slots.are_held_by(job));
        let count = |slots: &Slots| SlotCount { total: slots.total, free: slots.free };
        let mut free: Vec<(TaskManagerId, SlotCount)> = usable.map(|(id, slots)| (*id, count(slots))).collect();
        if free.iter().map(|(_, count)| u64::from(count.free)).sum::<u64>() < missing.into() {
            return Vec::new();
        }
        let mut chosen = BTreeMap::<TaskManagerId, u32>::new();
        match self.spread {
            Spread::Pack => {
                // The fullest that has room for all, or else the emptiest ones: the fewest workers either way.
                let mut missing = missing;
                if let Some((task_manager, _)) =
                    free.iter().filter(|(_, count)| count.free >= missing).min_by_key(|(_, count)| count.free)
                {
                    chosen.insert(*task_manager, missing);
                    missing = 0;
                }
                free.sort_by_key(|(_, count)| std::cmp::Reverse(count.free));
                for (task_manager, count) in free {
                    let taken = count.free.min(missing);
                    if taken > 0 {
                        chosen.insert(task_manager, taken);
                    }
                    missing -= taken;
                }
            }
            Spread::Evenly => {
                for _ in 0..missing {
                    let share = |count: &SlotCount| f64::from(count.total - count.free) / f64::from(count.total);
                    let (task_manager, count) = free
                        .iter_mut()
                        .filter(|(_, count)| count.free > 0)
                        .min_by(|(_, one), (_, other)| share(one).total_cmp(&share(other)))
                        .expect("there are enough");
                    count.free -= 1;
                    *chosen.entry(*task_manager).or_default() += 1;
                }
            }
        }
        chosen.retain(|_, slots| *slots > 0);
        chosen.into_iter().collect()
    }

    fn held_by(&self, job: JobId) -> u32 {
        self.held_by.get(&job).copied().unwrap_or(0)
    }

    /// What each job still misses.
    pub fn missing(&self) -> impl Iterator<Item = (JobId, u32)> {
        let missing = self.required.iter().map(|(job, required)| (*job, required.saturating_sub(self.held_by(*job))));
        missing.filter(|(_, missing)| *missing > 0)
    }

    pub fn task_managers(&self) -> impl Iterator<Item = (TaskManagerId, SlotCount)> {
        self.task_managers.iter().map(|(id, slots)| (*id, SlotCount { total: slots.total, free: slots.free }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const A: JobId = JobId(0xa);
    const B: JobId = JobId(0xb);

    fn manager(spread: Spread, slots: &[u32]) -> SlotManager {
        let mut manager = SlotManager::new(spread);
        slots.iter().enumerate().for_each(|(id, slots)| manager.on_registered(TaskManagerId(id as u128), *slots));
        manager
    }

    fn ids() -> impl FnMut() -> AllocationId {
        let mut next = 0;
        move || {
            next += 1;
            AllocationId(next)
        }
    }

    fn given(requests: &[SlotRequest]) -> Vec<(u128, u128, u32)> {
        requests.iter().map(|r| (r.task_manager.0, r.allocation.job.0, r.allocation.slots)).collect()
    }

    #[test]
    fn a_job_gets_all_that_it_misses_from_as_few_task_managers_as_can_be() {
        let mut manager = manager(Spread::Pack, &[2, 4, 3]);
        let mut ids = ids();
        manager.require(A, 3);
        assert_eq!(given(&manager.allocate(&mut ids)), [(2, 0xa, 3)]);
        manager.require(B, 5);
        assert_eq!(given(&manager.allocate(&mut ids)), [(0, 0xb, 1), (1, 0xb, 4)]);
        assert_eq!(given(&manager.allocate(&mut ids)), []);
        assert_eq!(manager.missing().count(), 0);
    }

    #[test]
    fn slots_are_spread_by_the_share_in_use() {
        let mut manager = manager(Spread::Evenly, &[2, 4]);
        manager.require(A, 3);
        assert_eq!(given(&manager.allocate(ids())), [(0, 0xa, 1), (1, 0xa, 2)]);
    }

    #[test]
    fn what_does_not_fit_takes_nothing_and_keeps_nobody_else_waiting() {
        let mut manager = manager(Spread::Pack, &[2]);
        let mut ids = ids();
        manager.require(A, 3);
        manager.require(B, 1);
        assert_eq!(given(&manager.allocate(&mut ids)), [(0, 0xb, 1)]);
        assert_eq!(manager.missing().collect::<Vec<_>>(), [(A, 3)]);
        manager.on_registered(TaskManagerId(7), 2);
        assert_eq!(given(&manager.allocate(&mut ids)), [(0, 0xa, 1), (7, 0xa, 2)]);
    }

    #[test]
    fn what_is_lost_is_found_again() {
        let mut manager = manager(Spread::Evenly, &[2, 2, 1]);
        let mut ids = ids();
        manager.require(A, 4);
        let requests = manager.allocate(&mut ids);
        let first = requests[0];
        assert_eq!(manager.on_freed(first.task_manager, first.id), Some(first.allocation));
        assert_eq!(manager.on_freed(first.task_manager, first.id), None);
        let again = manager.allocate(&mut ids);
        assert_eq!(again.iter().map(|request| request.allocation.slots).sum::<u32>(), first.allocation.slots);
        let gone = manager.on_gone(TaskManagerId(1));
        assert!(!gone.is_empty() && gone.iter().all(|(_, lost)| lost.job == A));
        assert_eq!(given(&manager.allocate(&mut ids)), [], "three slots are left, and it holds some of them");
    }

    #[test]
    fn what_a_task_manager_holds_from_before_counts() {
        let mut manager = manager(Spread::Pack, &[3]);
        let held = Allocation { job: A, slots: 2 };
        manager.on_held(TaskManagerId(0), AllocationId(77), held);
        manager.require(A, 2);
        manager.require(B, 2);
        assert_eq!(given(&manager.allocate(ids())), [], "A has what it needs, and one slot is left");
        assert_eq!(manager.on_freed(TaskManagerId(0), AllocationId(77)), Some(held));
        manager.require(A, 0);
        assert_eq!(given(&manager.allocate(ids())), [(0, 0xb, 2)]);
    }

    #[test]
    fn a_job_that_has_lost_slots_gets_those_of_others_first_and_else_gives_up_its_worker_for_all_together() {
        let mut manager = manager(Spread::Pack, &[3, 1]);
        let mut ids = ids();
        manager.require(B, 2);
        assert_eq!(given(&manager.allocate(&mut ids)), [(0, 0xb, 2)]);
        manager.require(A, 2);
        let of_a = manager.allocate(&mut ids);
        assert_eq!(given(&of_a), [(0, 0xa, 1), (1, 0xa, 1)]);
        // One of its workers is gone, and comes back: the same TaskManager has its slot.
        manager.on_freed(of_a[1].task_manager, of_a[1].id);
        assert!(manager.retire().is_empty(), "there is a slot elsewhere");
        let again = manager.allocate(&mut ids);
        assert_eq!(given(&again), [(1, 0xa, 1)]);
        // The TaskManager is gone, and there are slots where A has its other worker.
        manager.on_gone(TaskManagerId(1));
        manager.on_freed(TaskManagerId(0), AllocationId(1));
        manager.require(B, 0);
        assert_eq!(given(&manager.allocate(&mut ids)), [], "that would be a second worker");
        assert_eq!(manager.retire(), [(TaskManagerId(0), of_a[0].id)]);
        assert_eq!(given(&manager.allocate(&mut ids)), [], "the first is still there");
        assert!(manager.retire().is_empty(), "it was told so once");
        manager.on_freed(TaskManagerId(0), of_a[0].id);
        assert_eq!(given(&manager.allocate(&mut ids)), [(0, 0xa, 2)]);
    }

    #[test]
    fn a_job_that_needs_nothing_any_more_gets_nothing() {
        let mut manager = manager(Spread::Pack, &[2]);
        manager.require(A, 2);
        manager.require(A, 0);
        assert_eq!(given(&manager.allocate(ids())), []);
    }

    #[test]
    fn random_histories_never_give_a_slot_twice_and_leak_none() {
        for seed in 1..300_u64 {
            let mut state = seed;
            let mut random = move |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let mut manager = SlotManager::new(if seed % 2 == 0 { Spread::Pack } else { Spread::Evenly });
            let mut ids = ids();
            let mut there: Vec<(TaskManagerId, u32)> = Vec::new();
            let mut held: Vec<SlotRequest> = Vec::new();
            let mut seen = HashSet::new();
            let mut retiring: Vec<SlotRequest> = Vec::new();
            for step in 0..400_u128 {
                match random(5) {
                    0 => {
                        let slots = 1 + random(6) as u32;
                        manager.on_registered(TaskManagerId(step), slots);
                        there.push((TaskManagerId(step), slots));
                    }
                    1 if !there.is_empty() => {
                        let (gone, _) = there.swap_remove(random(there.len() as u64) as usize);
                        let lost = manager.on_gone(gone).len();
                        let before = held.len();
                        held.retain(|request| request.task_manager != gone);
                        assert_eq!(before - held.len(), lost, "seed {seed}");
                    }
                    2 if !held.is_empty() => {
                        let freed = held.swap_remove(random(held.len() as u64) as usize);
                        assert_eq!(manager.on_freed(freed.task_manager, freed.id), Some(freed.allocation));
                    }
                    3 => manager.require(JobId(u128::from(random(5))), random(8) as u32),
                    _ => {
                        let missing: BTreeMap<JobId, u32> = manager.missing().collect();
                        let requests = manager.allocate(&mut ids);
                        assert!(requests.iter().all(|request| seen.insert(request.id)), "seed {seed}: an id twice");
                        for (job, missing) in missing {
                            let got = requests.iter().filter(|request| request.allocation.job == job);
                            let got: u32 = got.map(|request| request.allocation.slots).sum();
                            assert!(got == 0 || got == missing, "seed {seed}: {got} of {missing}");
                        }
                        held.extend(requests);
                        for (task_manager, id) in manager.retire() {
                            let of = held.iter().position(|known| known.task_manager == task_manager && known.id == id);
                            let of = of.unwrap_or_else(|| panic!("seed {seed}: what is given up is not held"));
                            retiring.push(held[of]);
                        }
                        // Some take longer to end than others.
                        while !retiring.is_empty() && random(3) > 0 {
                            let ended = retiring.swap_remove(random(retiring.len() as u64) as usize);
                            if held.contains(&ended) {
                                held.retain(|request| *request != ended);
                                manager.on_freed(ended.task_manager, ended.id);
                            }
                        }
                    }
                }
                let pairs = held.iter().map(|request| (request.task_manager, request.allocation.job));
                let distinct: HashSet<_> = pairs.collect();
                assert_eq!(distinct.len(), held.len(), "seed {seed}: a job has two workers of one TaskManager");
                for (id, slots) in &there {
                    let used = held.iter().filter(|request| request.task_manager == *id);
                    let used: u32 = used.map(|request| request.allocation.slots).sum();
                    let count = manager.task_managers().find(|(known, _)| known == id).map(|(_, count)| count);
                    let expected = SlotCount { total: *slots, free: slots - used };
                    assert_eq!(count, Some(expected), "seed {seed}");
                }
            }
            // When all that was given up has ended, whoever can have all that he misses has it, but for those before him.
            for _ in 0..10 {
                for ended in std::mem::take(&mut retiring) {
                    manager.on_freed(ended.task_manager, ended.id);
                    held.retain(|request| *request != ended);
                }
                held.extend(manager.allocate(&mut ids));
                let retired = manager.retire();
                retiring.extend(held.iter().filter(|request| retired.contains(&(request.task_manager, request.id))));
            }
            assert!(retiring.is_empty(), "seed {seed}: workers are given up without end");
            let free: u64 = manager.task_managers().map(|(_, count)| u64::from(count.free)).sum();
            for (job, missing) in manager.missing() {
                assert!(u64::from(missing) > free, "seed {seed}: job {job} misses {missing}, and {free} are free");
            }
        }
    }
}
