//! What goes wrong in a history, and when. All of it is over before [`HEALED`]: then everything has to come to its end.

use crate::{
    network::{HEARTBEAT_TIMEOUT, Time},
    store::WriteFault,
    task_manager::OnJobManagerLost,
};

/// From here on nothing goes wrong any more.
pub const HEALED: Time = 25_000_000;

/// One thing that goes wrong. Hosts are those of TaskManagers, by their place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The JobManager's process ends, and another starts after so many microseconds.
    JobManagerKilled {
        back: Time,
    },
    /// It stands still, with all its timers and messages. If it takes long, another is elected meanwhile.
    JobManagerFrozen {
        length: Time,
        successor: Option<Time>,
    },
    TaskManagerKilled {
        host: usize,
        back: Time,
    },
    /// One of its workers, by chance.
    WorkerKilled {
        host: usize,
    },
    /// A function of the user fails.
    TaskFails {
        host: usize,
    },
    /// Nobody reaches the host, and it nobody.
    Partition {
        host: usize,
        length: Time,
    },
    /// The connection to the JobManager is lost, with all that is under way.
    ConnectionLost {
        host: usize,
    },
    /// The same, and the JobManager hears nothing of it: the TaskManager is there again before that has noticed.
    ConnectionCut {
        host: usize,
        noticed: Time,
    },
    /// All that the host does takes so many times longer.
    Slow {
        host: usize,
        factor: u64,
        length: Time,
    },
    /// Workers that are started on the host die before they are ready.
    StillBirths {
        host: usize,
        length: Time,
    },
    Store(WriteFault),
    /// A client cancels a job.
    Cancel {
        job: usize,
    },
}

/// The plan of a history.
#[derive(Clone, Debug)]
pub struct Faults {
    pub hosts: usize,
    pub slots: u32,
    pub jobs: usize,
    /// Of a hundred messages, how many arrive twice.
    pub duplicates: u32,
    pub on_lost: OnJobManagerLost,
    /// How long a JobManager waits for the workers of the one before it.
    pub adopt_timeout: Time,
    /// How long a TaskManager goes on without a JobManager.
    pub patience: Time,
    pub list: Vec<(Time, Fault)>,
}

impl Faults {
    pub fn random(random: &mut fastrand::Rng) -> Faults {
        let (hosts, slots, jobs) = (random.usize(1..=4), random.u32(3..=5), random.usize(1..=3));
        let duplicates = if random.bool() { 0 } else { random.u32(0..20) };
        let on_lost = match random.u32(0..4) {
            0 => OnJobManagerLost::EndWorkers,
            _ => OnJobManagerLost::KeepWorkers,
        };
        let (adopt_timeout, patience) = (random.u64(200_000..8_000_000), random.u64(1_000_000..30_000_000));
        let mut list = Vec::new();
        for _ in 0..random.u32(0..14) {
            let at = random.u64(100_000..HEALED - 12_000_000);
            list.push((at, Fault::random(random, hosts, jobs)));
        }
        // What happens while the next JobManager decides what it adopts.
        let elections = list.iter().filter_map(|(at, fault)| match fault {
            Fault::JobManagerKilled { back } => Some(at + back),
            _ => None,
        });
        for elected in elections.collect::<Vec<_>>() {
            if random.bool() {
                let (at, host) = (elected + random.u64(0..600_000), random.usize(0..hosts));
                let fault = match random.u32(0..3) {
                    0 => Fault::WorkerKilled { host },
                    1 => Fault::TaskFails { host },
                    _ => Fault::ConnectionLost { host },
                };
                list.push((at, fault));
            }
        }
        // What stops the JobManager while it restarts something.
        let failures = list.iter().filter_map(|(at, fault)| match fault {
            Fault::WorkerKilled { .. } | Fault::TaskFails { .. } => Some(*at),
            _ => None,
        });
        for failed in failures.collect::<Vec<_>>() {
            if random.u32(0..5) == 0 {
                let at = failed + random.u64(0..1_500_000);
                list.push((at, Fault::JobManagerKilled { back: random.u64(10_000..1_000_000) }));
            }
        }
        list.sort_by_key(|(at, _)| *at);
        Faults { hosts, slots, jobs, duplicates, on_lost, adopt_timeout, patience, list }
    }
}

impl Fault {
    fn random(random: &mut fastrand::Rng, hosts: usize, jobs: usize) -> Fault {
        let host = random.usize(0..hosts);
        let length = random.u64(10_000..11_000_000);
        match random.u32(0..23) {
            0..2 => Fault::JobManagerKilled { back: random.u64(10_000..3_000_000) },
            2..5 => {
                let successor = random.bool().then(|| random.u64(0..length));
                Fault::JobManagerFrozen { length, successor }
            }
            5..7 => Fault::TaskManagerKilled { host, back: random.u64(10_000..5_000_000) },
            7..11 => Fault::WorkerKilled { host },
            11..13 => Fault::TaskFails { host },
            13..15 => Fault::Partition { host, length },
            15 => Fault::ConnectionLost { host },
            16 => Fault::Slow { host, factor: random.u64(2..200), length },
            17 => Fault::StillBirths { host, length },
            18..20 => Fault::Store(WriteFault::NotWritten),
            20 => Fault::Store(WriteFault::AnswerLost),
            21 => Fault::ConnectionCut { host, noticed: length.min(HEARTBEAT_TIMEOUT) },
            _ => Fault::Cancel { job: random.usize(0..jobs) },
        }
    }
}
