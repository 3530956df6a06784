//! One thread with some peers over TCP, all of which another thread drives by the same means: the
//! shape of the engine's bench `socket_io`, with nothing of the engine in it.
//!
//! | look here for | in |
//! |---|---|
//! | the bytes, and how they are checked | [`sequence`] |
//! | what counts, and when | [`meter`] |
//! | non-blocking calls and epoll | [`syscalls`] |
//! | tasks of tokio-uring | [`uring`] |

mod meter;
mod sequence;
mod syscalls;
mod uring;

use std::{
    cell::RefCell,
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::Duration,
};

use harness::{
    machine::{cpu_seconds, pin, thread_cpu_seconds},
    report::{Figure, Run},
};
use serde_json::json;
use transport::tcp;

use crate::means::Means;
use meter::Meter;
use sequence::Sequence;

const PING_BYTES: usize = 64;
/// What one receive may take, as in the engine's transport.
const READ_BYTES: usize = 256 << 10;

/// What the measured thread and its peers do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// A ping of each peer is always under way.
    Pings,
    /// As much to each peer as it takes.
    Bulk,
}

/// What has passed over one connection, as one of its ends has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Passed {
    sent: u64,
    received: u64,
}

impl Passed {
    fn of(outgoing: &Sequence, incoming: &Sequence) -> Passed {
        Passed { sent: outgoing.passed(), received: incoming.passed() }
    }

    fn mirrored(self) -> Passed {
        Passed { sent: self.received, received: self.sent }
    }
}

/// Pings, then bulk, each for `time` after a third of it. Processor time is that of the one thread,
/// except `receiving_cpu_s_per_gb`, of its peers' from the first byte to the last.
///
/// # Panics
/// If bytes are lost, doubled or misplaced.
pub fn run(means: Means, peers: usize, time: Duration) -> Run {
    let (mut figures, pings_elsewhere) = measure(means, Work::Pings, peers, time);
    let (bulk, bulk_elsewhere) = measure(means, Work::Bulk, peers, time);
    figures.extend(bulk);
    // Threads of the kernel that work for a ring count here; for sockets there should be none.
    let elsewhere = pings_elsewhere + bulk_elsewhere;
    Run { figures, facts: json!({ "cpu_s_of_other_threads": elsewhere }) }
}

/// The figures, and processor time of this process that neither of the two threads has used.
fn measure(means: Means, work: Work, peers: usize, time: Duration) -> (Vec<Figure>, f64) {
    let (near, far) = (0..peers).map(|_| connection()).unzip();
    let received = &Arc::new(AtomicU64::new(0));
    let cpu_before = cpu_seconds();
    let ((mut figures, near_passed, near_cpu), (far_passed, far_cpu)) = thread::scope(|scope| {
        let far = scope.spawn(move || {
            pin(1);
            let passed = match means {
                Means::Syscalls => syscalls::serve(work, far, received),
                Means::TokioUring => uring::serve(work, far, received),
            };
            (passed, thread_cpu_seconds())
        });
        let near = scope.spawn(move || {
            pin(0);
            let meter = Rc::new(RefCell::new(Meter::start(time, received.clone())));
            let passed = match means {
                Means::Syscalls => syscalls::drive(work, near, &mut meter.borrow_mut()),
                Means::TokioUring => uring::drive(work, near, &meter),
            };
            let figures = match work {
                Work::Pings => meter.borrow().pings(),
                Work::Bulk => meter.borrow().bulk(),
            };
            (figures, passed, thread_cpu_seconds())
        });
        (near.join().expect("nothing is lost"), far.join().expect("nothing is lost"))
    });
    let elsewhere = cpu_seconds() - cpu_before - near_cpu - far_cpu;
    let mirrored: Vec<Passed> = far_passed.into_iter().map(Passed::mirrored).collect();
    assert_eq!(near_passed, mirrored, "bytes were lost");
    if work == Work::Bulk {
        let bytes: u64 = near_passed.iter().map(|passed| passed.sent).sum();
        let value = far_cpu / (bytes as f64 / 1e9);
        figures.push(Figure { metric: "receiving_cpu_s_per_gb", value, unit: "s/GB" });
    }
    (figures, elsewhere)
}

/// The two ends of a connection over loopback, which wait.
fn connection() -> (TcpStream, TcpStream) {
    let connected = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| {
        Ok((TcpStream::connect(listener.local_addr()?)?, listener.accept()?.0))
    });
    let (near, far) = connected.expect("loopback connects");
    tcp::prepare(&near);
    tcp::prepare(&far);
    (near, far)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `measure` compares what both ends have counted, and each end checks every byte.
    fn moves_bytes(means: Means) {
        for work in [Work::Pings, Work::Bulk] {
            for peers in [1, 5] {
                let (figures, _) = measure(means, work, peers, Duration::from_millis(60));
                for figure in figures {
                    assert!(figure.value > 0.0, "{work:?} with {peers} peers: {figure:?}");
                }
            }
        }
    }

    #[test]
    fn system_calls_move_all_bytes_once_and_in_order() {
        moves_bytes(Means::Syscalls);
    }

    #[test]
    fn tokio_uring_moves_all_bytes_once_and_in_order() {
        match Means::TokioUring.is_there() {
            Ok(()) => moves_bytes(Means::TokioUring),
            Err(error) => eprintln!("not tested: {error}"),
        }
    }
}
