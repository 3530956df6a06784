//! Thousands of histories. `SIM_SEED=…` runs one of them and prints its trace; `SIM_SEEDS=…` says how many are run.

use std::{
    env,
    num::NonZero,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use millstream_sim::{Broken, Ran, simulate};
use tempfile::TempDir;

const SEEDS: u64 = 3000;

/// Checkpoints are synced, which is for nothing on a disk here.
fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let below = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
    tempfile::tempdir_in::<PathBuf>(below).expect("a temporary directory")
}

fn run(seed: u64) -> Result<Ran, Box<Broken>> {
    let directory = in_memory();
    simulate(seed, directory.path())
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {text:?}")))
}

#[test]
fn nothing_forbidden_happens_whatever_goes_wrong() {
    if let Some(seed) = number("SIM_SEED") {
        let ran = run(seed).unwrap_or_else(|broken| panic!("\n{broken}"));
        ran.last.iter().for_each(|line| println!("{line}"));
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    // Each history is of one thread; several run side by side.
    let some = || {
        let (mut ran, mut broken) = (Vec::new(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return (ran, broken);
            }
            match run(seed) {
                Ok(history) => ran.push(history),
                Err(history) => broken.push(history),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let all: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        started.into_iter().map(|thread| thread.join().expect("no history panics")).collect()
    });
    let (ran, broken): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let mut broken: Vec<_> = broken.into_iter().flatten().collect();
    broken.sort_by_key(|broken| broken.seed);
    if let Some(first) = broken.first() {
        let others = broken.iter().skip(1).take(20).map(|broken| format!("\n  seed {}: {}", broken.seed, broken.what));
        let others = others.collect::<String>();
        panic!("\n{first}\n{} of {seeds} histories are broken; others:{others}", broken.len());
    }
    let sum = |of: fn(&Ran) -> u64| ran.iter().flatten().map(of).sum::<u64>();
    let (events, restarts, checkpoints) = (sum(|it| it.events), sum(|it| it.restarts), sum(|it| it.checkpoints));
    let (elections, fenced) = (sum(|it| it.elections), sum(|it| it.fenced));
    let (adoptions, refused) = (sum(|it| it.adoptions), sum(|it| it.refused_adoptions));
    let (beside, in_part) = (sum(|it| it.restarts_beside_others), sum(|it| it.adopted_in_part));
    println!(
        "{seeds} histories: {events} events, {restarts} restarts, {checkpoints} checkpoints, {elections} elections, \
         {adoptions} adoptions, {in_part} of them in part, {refused} refused, {fenced} calls fenced off, {beside} attempts \
         that began again beside others"
    );
    // A simulation in which nothing goes wrong would show nothing.
    assert!(restarts > seeds / 2 && checkpoints > seeds && elections > seeds, "too little happens");
    assert!(seeds < 200 || (adoptions > seeds / 20 && refused > seeds / 20), "too little is adopted, or refused");
    assert!(seeds < 200 || (beside > seeds / 2 && in_part > seeds / 200), "too few regions restart beside others");
    assert!(seeds < 200 || fenced > 0, "no replaced leader ever wrote");
}

#[test]
fn the_same_seed_is_the_same_history() {
    let mut traces = Vec::new();
    for seed in 0..40 {
        let again = || run(seed).unwrap_or_else(|broken| panic!("\n{broken}"));
        let (first, second) = (again(), again());
        assert_eq!(first, second, "seed {seed}");
        traces.push(first.trace);
    }
    traces.dedup();
    assert_eq!(traces.len(), 40, "seeds do not differ");
}
