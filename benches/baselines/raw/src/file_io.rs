//! A file as a checkpoint has it: written in large pieces one after the other, one fsync at the end,
//! and read back, which is then from the page cache.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    thread,
};

use harness::{
    machine::{cpu_seconds, now_nanos},
    records::splitmix,
    report::{Figure, Run},
};
use serde_json::json;

use crate::means::{Means, ring};

pub const PIECE_BYTES: usize = 1 << 20;

/// Times and processor times, of the whole process: threads of the kernel that work for it count.
#[derive(Clone, Copy)]
struct Moment {
    at_nanos: u64,
    cpu_seconds: f64,
}

impl Moment {
    fn now() -> Moment {
        Moment { at_nanos: now_nanos(), cpu_seconds: cpu_seconds() }
    }
}

/// Moments before writing, before the fsync and after it; before reading and after it.
struct Moments {
    writes: Moment,
    syncs: Moment,
    is_durable: Moment,
    reads: Moment,
    has_read: Moment,
}

/// Writes a new file of `pieces` into `dir`, reads it and deletes it.
///
/// # Panics
/// If the file cannot be written, or other bytes are read than were written.
pub fn run(means: Means, dir: &Path, pieces: usize) -> Run {
    let path = &dir.join(format!("file-io-{}", std::process::id()));
    let work = move || match means {
        Means::Syscalls => with_syscalls(path, pieces),
        Means::TokioUring => {
            ring().expect("the kernel has rings").block_on(with_tokio_uring(path, pieces))
        }
    };
    let moments = thread::scope(|scope| scope.spawn(work).join().expect("the disk has room"));
    fs::remove_file(path).expect("it was written");
    figures(&moments, pieces)
}

fn figures(moments: &Moments, pieces: usize) -> Run {
    let Moments { writes, syncs, is_durable, reads, has_read } = *moments;
    let bytes = (pieces * PIECE_BYTES) as f64;
    let speed = |from: Moment, to: Moment| bytes / ((to.at_nanos - from.at_nanos) as f64 / 1e9);
    let cost = |from: Moment, to: Moment| (to.cpu_seconds - from.cpu_seconds) / (bytes / 1e9);
    let sync_seconds = (is_durable.at_nanos - syncs.at_nanos) as f64 / 1e9;
    let figure = |metric, value, unit| Figure { metric, value, unit };
    let figures = vec![
        figure("write_bytes_per_s", speed(writes, is_durable), "B/s"),
        figure("write_cpu_s_per_gb", cost(writes, is_durable), "s/GB"),
        figure("before_sync_bytes_per_s", speed(writes, syncs), "B/s"),
        figure("sync_s", sync_seconds, "s"),
        figure("read_bytes_per_s", speed(reads, has_read), "B/s"),
        figure("read_cpu_s_per_gb", cost(reads, has_read), "s/GB"),
    ];
    Run { figures, facts: json!({}) }
}

fn with_syscalls(path: &Path, pieces: usize) -> Moments {
    let mut piece = piece();
    let writes = Moment::now();
    let mut file = File::create(path).expect("the folder can be written to");
    for nth in 0..pieces {
        stamp(&mut piece, nth);
        file.write_all(&piece).expect("the disk has room");
    }
    let syncs = Moment::now();
    file.sync_all().expect("the disk has room");
    let is_durable = Moment::now();
    drop(file);
    let reads = Moment::now();
    let mut file = File::open(path).expect("it was written");
    for nth in 0..pieces {
        file.read_exact(&mut piece).expect("it was written");
        check(&piece, nth);
    }
    Moments { writes, syncs, is_durable, reads, has_read: Moment::now() }
}

async fn with_tokio_uring(path: &Path, pieces: usize) -> Moments {
    use tokio_uring::fs::File;

    let mut piece = piece();
    let writes = Moment::now();
    let file = File::create(path).await.expect("the folder can be written to");
    for nth in 0..pieces {
        stamp(&mut piece, nth);
        let (written, returned) = file.write_all_at(piece, (nth * PIECE_BYTES) as u64).await;
        written.expect("the disk has room");
        piece = returned;
    }
    let syncs = Moment::now();
    file.sync_all().await.expect("the disk has room");
    let is_durable = Moment::now();
    file.close().await.expect("all is on the disk");
    let reads = Moment::now();
    let file = File::open(path).await.expect("it was written");
    for nth in 0..pieces {
        let (read, returned) = file.read_exact_at(piece, (nth * PIECE_BYTES) as u64).await;
        read.expect("it was written");
        piece = returned;
        check(&piece, nth);
    }
    let has_read = Moment::now();
    file.close().await.expect("it was only read");
    Moments { writes, syncs, is_durable, reads, has_read }
}

fn piece() -> Vec<u8> {
    (0..PIECE_BYTES as u64 / 8).flat_map(|n| splitmix(n).to_ne_bytes()).collect()
}

/// Both ends of a piece say which it is.
fn stamp(piece: &mut [u8], nth: usize) {
    let nth = (nth as u64).to_ne_bytes();
    piece[..8].copy_from_slice(&nth);
    piece[PIECE_BYTES - 8..].copy_from_slice(&nth);
}

/// # Panics
/// If this is another piece.
fn check(read: &[u8], nth: usize) {
    let stamp = (nth as u64).to_ne_bytes();
    let ends = [&read[..8], &read[PIECE_BYTES - 8..]];
    assert_eq!(ends, [stamp; 2], "another piece than the {nth}th was read");
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn both_means_write_what_they_read() {
        for means in Means::ALL {
            match means.is_there() {
                Ok(()) => {
                    for figure in run(means, &env::temp_dir(), 3).figures {
                        assert!(figure.value >= 0.0, "{means:?}: {figure:?}");
                    }
                }
                Err(error) => eprintln!("{means:?} is not tested: {error}"),
            }
        }
    }

    #[test]
    fn another_piece_is_noticed() {
        let mut piece = piece();
        stamp(&mut piece, 5);
        check(&piece, 5);
        assert!(std::panic::catch_unwind(|| check(&piece, 6)).is_err());
    }
}
