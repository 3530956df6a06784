//! A task of tokio-uring per connection. The runtime gathers what tasks ask for while any of them
//! can go on, and then asks the kernel for all of it with one call.

use std::{
    cell::RefCell,
    net::{Shutdown, TcpStream as StdStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use harness::machine::now_nanos;
use tokio_uring::{BufResult, net::TcpStream};

use super::{
    PING_BYTES, Passed, READ_BYTES, Work, meter::Meter, sequence::Sequence, sequence::WRITE_BYTES,
};
use crate::means::ring;

/// The measured thread.
pub fn drive(work: Work, streams: Vec<StdStream>, meter: &Rc<RefCell<Meter>>) -> Vec<Passed> {
    each(streams, |nth, stream| {
        let meter = meter.clone();
        async move {
            let passed = match work {
                Work::Pings => ping(nth, &stream, &meter).await,
                Work::Bulk => fill(nth, &stream, &meter).await,
            };
            stream.shutdown(Shutdown::Write).expect("the peer reads to the end");
            passed
        }
    })
}

/// All its peers.
pub fn serve(work: Work, streams: Vec<StdStream>, received: &Arc<AtomicU64>) -> Vec<Passed> {
    each(streams, |nth, stream| answer(work, nth, stream, received.clone()))
}

/// A task for each stream, on a runtime of the calling thread, until all have ended.
fn each<F: Future<Output = Passed> + 'static>(
    streams: Vec<StdStream>,
    task: impl Fn(usize, TcpStream) -> F,
) -> Vec<Passed> {
    let runtime = ring().expect("the kernel has rings: see `Means::is_there`");
    runtime.block_on(async {
        let start = |(nth, stream)| tokio_uring::spawn(task(nth, TcpStream::from_std(stream)));
        let tasks: Vec<_> = streams.into_iter().enumerate().map(start).collect();
        let mut passed = Vec::new();
        for task in tasks {
            passed.push(task.await.expect("nothing is lost"));
        }
        passed
    })
}

/// Asks, and asks again once there is an answer. The question and the wait for its answer reach the
/// kernel with one call.
async fn ping(nth: usize, stream: &TcpStream, meter: &RefCell<Meter>) -> Passed {
    let (mut outgoing, mut incoming) = (Sequence::new(nth), Sequence::new(nth));
    let mut memory = vec![0; READ_BYTES];
    loop {
        let asked_at = now_nanos();
        let asking = stream.write(outgoing.next(PING_BYTES)).submit();
        outgoing.advance(PING_BYTES);
        while incoming.passed() < outgoing.passed() {
            let (taken, returned) = stream.read(memory).await;
            memory = returned;
            let taken = taken.expect("the connection is sound");
            assert!(taken > 0, "the peer has ended early");
            incoming.take(&memory[..taken]);
        }
        let now = now_nanos();
        has_sent_ping(asking.await);
        let meter = &mut meter.borrow_mut();
        meter.answered(asked_at, now);
        if !meter.goes_on(now) {
            return Passed::of(&outgoing, &incoming);
        }
    }
}

/// Sends as much as there is room for.
async fn fill(nth: usize, stream: &TcpStream, meter: &RefCell<Meter>) -> Passed {
    let mut outgoing = Sequence::new(nth);
    while meter.borrow_mut().goes_on(now_nanos()) {
        let (sent, _) = stream.write(outgoing.next(WRITE_BYTES)).submit().await;
        let sent = sent.expect("the connection is sound");
        outgoing.advance(sent);
        meter.borrow_mut().sent(sent);
    }
    Passed::of(&outgoing, &Sequence::new(nth))
}

/// Takes what has come, and sends back what is a ping. The answer and the wait for the next ping
/// reach the kernel with one call.
async fn answer(work: Work, nth: usize, stream: TcpStream, received: Arc<AtomicU64>) -> Passed {
    let (mut outgoing, mut incoming) = (Sequence::new(nth), Sequence::new(nth));
    let mut memory = vec![0; READ_BYTES];
    let mut answering = None;
    loop {
        let (taken, returned) = stream.read(memory).await;
        memory = returned;
        if let Some(answering) = answering.take() {
            has_sent_ping(answering.await);
        }
        let taken = taken.expect("the connection is sound");
        if taken == 0 {
            return Passed::of(&outgoing, &incoming);
        }
        incoming.take(&memory[..taken]);
        received.fetch_add(taken as u64, Relaxed);
        if work == Work::Pings && incoming.passed().is_multiple_of(PING_BYTES as u64) {
            answering = Some(stream.write(outgoing.next(PING_BYTES)).submit());
            outgoing.advance(PING_BYTES);
        }
    }
}

/// So few bytes always have room: no more than one ping is under way.
fn has_sent_ping((sent, _): BufResult<usize, &'static [u8]>) {
    assert_eq!(sent.expect("the connection is sound"), PING_BYTES);
}
