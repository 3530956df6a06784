//! Loom's models of the protocols between threads: every order in which they may run, and every value that a load may
//! see. Run with `RUSTFLAGS="--cfg loom" cargo test -p millstream-shuffle --lib models`.

use std::sync::Arc;

use loom::{
    model,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use crate::{gate::GateSignal, segment::SegmentPool, wake::Waker};

/// Looks until `done`, and sleeps whenever there was nothing: a lost wake is a deadlock, which Loom reports.
fn sleep_until(waker: &Waker, mut done: impl FnMut() -> bool) {
    waker.bind();
    loop {
        waker.clear();
        if done() {
            return;
        }
        waker.park(None);
    }
}

#[test]
fn a_wake_before_or_after_falling_asleep_is_not_lost() {
    model(|| {
        let (waker, news) = (Arc::new(Waker::default()), Arc::new(AtomicU32::new(0)));
        let (wakes, told) = (waker.clone(), news.clone());
        let other = thread::spawn(move || {
            told.store(1, Relaxed);
            wakes.wake();
        });
        sleep_until(&waker, || news.load(Relaxed) == 1);
        other.join().unwrap();
    });
}

#[test]
fn of_two_wakes_at_once_none_is_lost() {
    model(|| {
        let waker = Arc::new(Waker::default());
        let news = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let others = [0, 1].map(|index| {
            let (wakes, told) = (waker.clone(), news.clone());
            thread::spawn(move || {
                told[index].store(1, Relaxed);
                wakes.wake();
            })
        });
        sleep_until(&waker, || news.iter().all(|news| news.load(Relaxed) == 1));
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn what_a_sender_signals_is_seen_by_a_task_that_sleeps() {
    model(|| {
        let waker = Arc::new(Waker::default());
        let signal = Arc::new(GateSignal::new(2, waker.clone()));
        let others = [0, 1].map(|channel| {
            let signal = signal.clone();
            thread::spawn(move || signal.notify(channel))
        });
        let mut seen = 0_u32;
        sleep_until(&waker, || {
            signal.take(|channel| seen |= 1 << channel);
            seen == 0b11
        });
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn news_that_were_written_before_a_signal_are_seen_after_it() {
    model(|| {
        let waker = Arc::new(Waker::default());
        let signal = Arc::new(GateSignal::new(1, waker.clone()));
        let news = Arc::new(AtomicU32::new(0));
        let (signals, told) = (signal.clone(), news.clone());
        let other = thread::spawn(move || {
            for number in 1..=2 {
                told.store(number, Relaxed);
                signals.notify(0);
            }
        });
        let mut last = 0;
        sleep_until(&waker, || {
            signal.take(|_| last = news.load(Relaxed));
            last == 2
        });
        other.join().unwrap();
    });
}

#[test]
fn a_reader_reads_only_bytes_that_were_committed_and_all_of_them_once_sealed() {
    model(|| {
        let pool = SegmentPool::new(64, 1);
        let mut writer = pool.take();
        let mut reader = writer.reader();
        let other = thread::spawn(move || {
            for byte in 1..=2_u8 {
                let (room, filled) = writer.room();
                room[0] = byte;
                *filled += 1;
                if byte == 1 {
                    writer.commit();
                }
            }
            writer.seal();
        });
        let mut seen = Vec::new();
        while !reader.is_finished() {
            let bytes = reader.available().to_vec();
            reader.consume(bytes.len());
            if bytes.is_empty() {
                thread::yield_now();
            }
            seen.extend(bytes);
        }
        assert_eq!(seen, [1, 2]);
        other.join().unwrap();
        drop(reader);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_shared_part_stays_as_it_is_while_the_segment_is_filled() {
    model(|| {
        let pool = SegmentPool::new(64, 1);
        let mut writer = pool.take();
        let reader = writer.reader();
        writer.room().0[0] = 1;
        *writer.room().1 += 1;
        writer.commit();
        let part = reader.share();
        let other = thread::spawn(move || {
            writer.room().0[0] = 2;
            *writer.room().1 += 1;
            writer.seal();
        });
        assert_eq!(part.as_ref(), [1]);
        other.join().unwrap();
    });
}
