//! A job's process is killed, again and again, and started again from its latest checkpoint: every record must count
//! exactly once in the committed output.

use std::fs;

use millstream_tests::{
    counts::{deviation, visible},
    job_process::{JOB_ID, JobFolder, JobProcess},
    text::add_text,
    wait_until,
};

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
/// The same, with an async function in front.
const ASYNC_WORD_COUNT: &str = env!("CARGO_BIN_EXE_async_word_count_job");

fn start(folder: &JobFolder, job: &str, parallelism: u32) -> JobProcess {
    let parallelism = format!("parallelism.default={parallelism}");
    folder.start(job, &[&parallelism, "execution.checkpointing.interval=50 ms"])
}

fn run_with_kills(job: &str, lines: u64, parallelisms: &[u32]) {
    let root = tempfile::tempdir().expect("there is room for a folder");
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, lines);
    let mut kills = 0;
    for (round, parallelism) in parallelisms.iter().enumerate() {
        let is_last = round + 1 == parallelisms.len();
        let before = folder.newest_checkpoint();
        let mut process = start(&folder, job, *parallelism);
        if !is_last {
            wait_until("a checkpoint, or the end", || folder.newest_checkpoint() > before || process.has_ended());
            if !process.has_ended() {
                process.kill();
                kills += 1;
                continue;
            }
        }
        assert!(process.end().success(), "the job failed in round {round}:\n{}", folder.log());
        break;
    }
    assert!(kills > 0, "the job was too fast to be killed");
    assert_eq!(deviation(&visible(&folder.output()), &totals), None, "after {kills} kills");
}

#[test]
fn every_record_counts_exactly_once_however_often_the_process_is_killed() {
    run_with_kills(WORD_COUNT, 150_000, &[2, 2, 2, 2]);
}

#[test]
fn a_killed_job_goes_on_at_another_parallelism() {
    run_with_kills(WORD_COUNT, 150_000, &[2, 3, 1]);
}

#[test]
fn records_that_an_async_function_works_on_are_neither_lost_nor_doubled_by_kills() {
    run_with_kills(ASYNC_WORD_COUNT, 20_000, &[2, 2, 3, 1]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let root = tempfile::tempdir().expect("there is room for a folder");
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 150_000);
    let mut process = start(&folder, WORD_COUNT, 2);
    process.wait_until(&folder, "two checkpoints", || folder.newest_checkpoint() >= 2);
    process.kill();

    let newest = folder.checkpoints().join(JOB_ID).join(format!("chk-{}", folder.newest_checkpoint()));
    let files = fs::read_dir(&newest).expect("it is complete").flatten().map(|entry| entry.path());
    let states: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "state")).collect();
    let mut bytes = fs::read(&states[0]).expect("a state can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&states[0], bytes).expect("a state can be damaged");

    let process = start(&folder, WORD_COUNT, 2);
    assert!(process.end().success(), "{}", folder.log());
    let name = states[0].file_name().and_then(|name| name.to_str()).expect("names are ASCII");
    assert!(folder.logged(&["WARN", name]) > 0, "no warning names {name}:\n{}", folder.log());
    // What the damaged checkpoint had committed is written again, so lines repeat; totals must still be right.
    let counts = visible(&folder.output());
    for (word, total) in &totals {
        assert_eq!(counts.get(word).and_then(|counts| counts.last()), Some(total), "{word}");
    }
}
