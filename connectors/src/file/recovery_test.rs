//! Model test of the sink: writers whose machine stops after any operation, on a disk that loses what was not synced,
//! go on from the last complete checkpoint, at any parallelism; in the end every line is there exactly once.
//!
//! The runtime's part is played here: lines come from a log that is read again from the checkpoint's position; a
//! checkpoint is complete when every writer has done what must be done before; notices of completion may be lost.

use std::path::Path;

use millstream_model::{fault::Failure, id::CheckpointId};
use proptest::prelude::*;

use super::{
    disk::Disk,
    part_io::PartIo,
    parts::{Parts, Rolling, WriterState},
    recovery::Recovery,
    simulated_disk::SimulatedDisk,
};

const DIRECTORY: &str = "/out";

struct Writer {
    parts: Parts,
    io: PartIo<SimulatedDisk>,
}

impl Writer {
    fn start(disk: &SimulatedDisk, recovery: &Recovery, rolling: Rolling) -> Result<Writer, Failure> {
        let next = recovery.run(disk, Path::new(DIRECTORY))?;
        let parts = Parts::new(recovery.subtask, next, rolling);
        Ok(Writer { parts, io: PartIo::new(disk.clone(), DIRECTORY.into()) })
    }

    fn obey(&mut self) -> Result<(), Failure> {
        let commands: Vec<_> = self.parts.commands().collect();
        commands.iter().try_for_each(|command| self.io.obey(command))
    }
}

/// What the job would start from.
#[derive(Clone, Default)]
struct Complete {
    id: u64,
    /// Lines of the log that come before it.
    lines: usize,
    states: Option<Vec<WriterState>>,
}

struct Model {
    disk: SimulatedDisk,
    rolling: Rolling,
    lines: usize,
    complete: Complete,
    next_checkpoint: u64,
}

/// One attempt of the job.
#[derive(Clone, Debug)]
struct Attempt {
    parallelism: u32,
    /// Operations until the machine stops.
    operations: u32,
    lines_per_checkpoint: usize,
    /// Out of four, how many notices of completion are lost.
    notices_lost: u64,
    /// Decides what of the unsynced survives.
    seed: u64,
}

impl Model {
    /// Runs until the log is written or the disk stops.
    fn attempt(&mut self, attempt: &Attempt) -> Result<(), Failure> {
        let parallelism = attempt.parallelism;
        let mut writers = Vec::new();
        for subtask in 0..parallelism {
            let states = self.complete.states.as_ref().map(|states| share(states, subtask, parallelism));
            writers.push(Writer::start(
                &self.disk,
                &Recovery { subtask, parallelism, restored: states },
                self.rolling,
            )?);
        }
        for line in self.complete.lines..self.lines {
            if line % attempt.lines_per_checkpoint == 0 {
                self.checkpoint(&mut writers, line, attempt.notices_lost, false)?;
            }
            let writer = &mut writers[line % parallelism as usize];
            writer.parts.add(format!("{line}\n").as_bytes());
            writer.obey()?;
        }
        // A job is complete only if its last checkpoint is.
        self.checkpoint(&mut writers, self.lines, attempt.notices_lost, true)?;
        for writer in &mut writers {
            writer.parts.finish();
            writer.obey()?;
        }
        Ok(())
    }

    fn checkpoint(
        &mut self,
        writers: &mut [Writer],
        lines: usize,
        notices_lost: u64,
        is_last: bool,
    ) -> Result<(), Failure> {
        let id = self.next_checkpoint;
        self.next_checkpoint += 1;
        let mut states = Vec::new();
        for writer in &mut *writers {
            states.push(writer.parts.prepare(CheckpointId(id)));
            writer.obey()?;
        }
        // One in five is given up, though everything was prepared.
        if id % 5 == 4 && !is_last {
            return Ok(());
        }
        self.complete = Complete { id, lines, states: Some(states) };
        for (index, writer) in writers.iter_mut().enumerate() {
            if (id + index as u64) % 4 >= notices_lost {
                writer.parts.commit(CheckpointId(self.complete.id));
                writer.obey()?;
            }
        }
        Ok(())
    }
}

/// Which states a writer gets: its own at the same parallelism, any at another.
fn share(states: &[WriterState], subtask: u32, parallelism: u32) -> Vec<WriterState> {
    let same = states.len() == parallelism as usize;
    let mine = |(index, state): (usize, &WriterState)| {
        let owner = if same { state.subtask } else { (index as u32 * 7 + 3) % parallelism };
        (owner == subtask).then(|| state.clone())
    };
    states.iter().enumerate().filter_map(mine).collect()
}

fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (1_u32..4, 0_u32..120, 1_usize..12, 0_u64..5, any::<u64>()).prop_map(
        |(parallelism, operations, lines_per_checkpoint, notices_lost, seed)| Attempt {
            parallelism,
            operations,
            lines_per_checkpoint,
            notices_lost,
            seed,
        },
    );
    prop::collection::vec(attempt, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_line_is_visible_exactly_once_wherever_the_machine_stops(
        attempts in attempts(),
        last_parallelism in 1_u32..4,
        bytes in 1_u64..40,
        on_checkpoint: bool,
    ) {
        let disk = SimulatedDisk::default();
        let rolling = Rolling { bytes, on_checkpoint };
        let mut model =
            Model { disk: disk.clone(), rolling, lines: 40, complete: Complete::default(), next_checkpoint: 1 };
        for attempt in &attempts {
            disk.stop_after(attempt.operations);
            if model.attempt(attempt).is_ok() {
                break;
            }
            let mut seed = attempt.seed;
            disk.crash(|limit| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 33) as usize % (limit + 1)
            });
            check_visible(&disk, model.lines, false)?;
        }
        let seed = attempts.last().map_or(0, |attempt| attempt.seed);
        let last = Attempt {
            parallelism: last_parallelism,
            operations: u32::MAX,
            lines_per_checkpoint: 9,
            notices_lost: seed % 4,
            seed,
        };
        disk.stop_after(u32::MAX);
        model.attempt(&last).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        check_visible(&disk, model.lines, true)?;
        // A run without a checkpoint finds only what finished jobs and rescaled ones have left, and clears it away.
        let recovery = Recovery { subtask: 0, parallelism: 1, restored: None };
        recovery.run(&disk, Path::new(DIRECTORY)).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        prop_assert_eq!(disk.hidden_files(), 0);
        check_visible(&disk, model.lines, true)?;
    }
}

/// No line is visible twice, and all are if they must be.
fn check_visible(disk: &SimulatedDisk, lines: usize, all: bool) -> Result<(), TestCaseError> {
    let text = disk.visible();
    let mut found: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    found.sort_unstable();
    let count = found.len();
    found.dedup();
    prop_assert_eq!(found.len(), count, "a line is there twice");
    if all {
        prop_assert_eq!(count, lines, "a line is missing");
    }
    Ok(())
}

#[test]
fn a_part_that_was_taken_away_is_missed_and_not_forgotten() {
    let disk = SimulatedDisk::default();
    let rolling = Rolling { bytes: 100, on_checkpoint: true };
    let recovery = |restored| Recovery { subtask: 0, parallelism: 1, restored };
    let mut writer = Writer::start(&disk, &recovery(None), rolling).unwrap();
    writer.parts.add(b"a\n");
    let state = writer.parts.prepare(CheckpointId(1));
    writer.obey().unwrap();
    disk.remove(&Path::new(DIRECTORY).join(".part-0-0.inprogress")).unwrap();
    let failure = recovery(Some(vec![state])).run(&disk, Path::new(DIRECTORY)).unwrap_err();
    assert!(failure.message.contains("/out/.part-0-0.inprogress"), "{failure}");
    assert!(failure.message.contains("has 2 bytes, but it does not exist"), "{failure}");
    assert!(failure.message.contains("part-0-0 of that length"), "{failure}");
}

#[test]
fn numbers_of_files_that_were_taken_away_are_not_used_again() {
    let disk = SimulatedDisk::default();
    let state = WriterState { subtask: 0, next: 7, finished: Vec::new(), current: None };
    let recovery = Recovery { subtask: 0, parallelism: 1, restored: Some(vec![state]) };
    assert_eq!(recovery.run(&disk, Path::new(DIRECTORY)), Ok(7));
}

#[test]
fn a_writer_that_recovers_late_leaves_the_files_of_those_that_have_begun() {
    let disk = SimulatedDisk::default();
    let rolling = Rolling { bytes: 100, on_checkpoint: true };
    let state = |subtask| WriterState { subtask, next: 0, finished: Vec::new(), current: None };
    let recovery = |subtask, states| Recovery { subtask, parallelism: 2, restored: Some(states) };
    // The state of subtask 0 has gone to subtask 1, as may happen when there were three before.
    let mut early = Writer::start(&disk, &recovery(0, vec![state(2)]), rolling).unwrap();
    early.parts.add(b"a\n");
    let prepared = early.parts.prepare(CheckpointId(1));
    early.obey().unwrap();
    Writer::start(&disk, &recovery(1, vec![state(0), state(1)]), rolling).unwrap();
    early.parts.commit(CheckpointId(1));
    early.obey().unwrap();
    assert_eq!((disk.visible(), prepared.finished.len()), ("a\n".to_owned(), 1));
}

#[test]
fn another_jobs_files_are_neither_overwritten_nor_removed() {
    let disk = SimulatedDisk::default();
    let rolling = Rolling { bytes: 1, on_checkpoint: true };
    let recovery = Recovery { subtask: 0, parallelism: 1, restored: None };
    for text in ["a\n", "b\n"] {
        let mut writer = Writer::start(&disk, &recovery, rolling).unwrap();
        writer.parts.add(text.as_bytes());
        writer.parts.finish();
        writer.obey().unwrap();
    }
    assert_eq!(disk.visible(), "a\nb\n");
    // And if somebody writes there at the same time, it is noticed.
    let mut writer = Writer::start(&disk, &recovery, rolling).unwrap();
    disk.create(&Path::new(DIRECTORY).join("part-0-2")).unwrap();
    writer.parts.add(b"c\n");
    let failure = writer.obey().unwrap_err();
    assert!(failure.message.contains("part-0-2 exists already"), "{failure}");
}
