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
//! **Invariant:** a slot belongs to at most one job, and what is held of a TaskManager never exceeds its slots.

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

    /// A TaskManager that has just registered says that it holds this still. It is taken as it is.
    ///
    /// # Panics
    /// If it is not there, or has not so many slots.
    pub fn on_held(&mut self, task_manager: TaskManagerId, id: AllocationId, allocation: Allocation) {
        let of = self.task_managers.get_mut(&task_manager).expect("it has registered");
        assert!(allocation.slots <= of.free, "TaskManager {task_manager} holds more than it has");
        let before = of.held.insert(id, allocation);
        assert!(before.is_none(), "allocation {id} is held twice");
        of.free -= allocation.slots;
        self.free -= u64::from(allocation.slots);
        *self.held_by.entry(allocation.job).or_default() += allocation.slots;
    }

    /// A TaskManager is gone; returns what jobs held of it.
    pub fn on_gone(&mut self, task_manager: TaskManagerId) -> Vec<(AllocationId, Allocation)> {
        let Some(gone) = self.task_managers.remove(&task_manager) else { return Vec::new() };
        self.free -= u64::from(gone.free);
        gone.held.values().for_each(|lost| self.on_lost(*lost));
        gone.held.into_iter().collect()
    }

    /// A TaskManager says that an allocation holds nothing any more; what it was, if it was any.
    pub fn on_freed(&mut self, task_manager: TaskManagerId, id: AllocationId) -> Option<Allocation> {
        let slots = self.task_managers.get_mut(&task_manager)?;
        let freed = slots.held.remove(&id)?;
        slots.free += freed.slots;
        self.free += u64::from(freed.slots);
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
            if missing == 0 || u64::from(missing) > self.free {
                continue;
            }
            for (task_manager, slots) in self.choose(missing) {
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

    /// How many slots of which TaskManagers make up `missing`; there are so many.
    fn choose(&self, missing: u32) -> Vec<(TaskManagerId, u32)> {
        let mut free: Vec<(TaskManagerId, SlotCount)> =
            self.task_managers().filter(|(_, count)| count.free > 0).collect();
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
                    }
                }
                for (id, slots) in &there {
                    let used = held.iter().filter(|request| request.task_manager == *id);
                    let used: u32 = used.map(|request| request.allocation.slots).sum();
                    let count = manager.task_managers().find(|(known, _)| known == id).map(|(_, count)| count);
                    let expected = SlotCount { total: *slots, free: slots - used };
                    assert_eq!(count, Some(expected), "seed {seed}");
                }
            }
        }
    }
}
