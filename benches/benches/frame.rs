//! Frames: writing a record into a segment and reading it back in place.
#![allow(missing_docs, reason = "criterion's macro writes the main function")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_api::{
    frame,
    record::{
        Record,
        archive::{self, Trust},
    },
};
use millstream_benches::keyed_sum::{Event, EventParts};
use millstream_model::{key_group::KeyHash, time::EventTime};

const SEGMENT: usize = 32 << 10;

/// Fills a segment with a record; returns how many fit and how far.
fn fill<T: Record>(record: T::Ref<'_>, segment: &mut [u8]) -> (u64, usize) {
    let (mut count, mut at) = (0, 0);
    while let Ok(written) = frame::write_record::<T>(black_box(record), EventTime::MIN, KeyHash(7), &mut segment[at..])
    {
        at += written;
        count += 1;
    }
    (count, at)
}

fn read<T: Record>(mut frames: &[u8], trust: Trust, mut each: impl FnMut(T::Ref<'_>)) {
    while !frames.is_empty() {
        let frame = frame::read_record(frames).expect("just written").expect("a record");
        each(archive::read::<T>(frame.archive, trust).expect("just written"));
        frames = &frames[frame.end..];
    }
}

fn frames<T: Record>(criterion: &mut Criterion, name: &str, record: T::Ref<'_>, each: fn(T::Ref<'_>) -> u64) {
    // SAFETY: what is read was written by `fill` for the same type.
    let trusted = unsafe { Trust::same_program() };
    let mut words = vec![0_u64; SEGMENT / 8];
    let segment = bytes_of(&mut words);
    let (count, end) = fill::<T>(record, segment);
    let mut group = criterion.benchmark_group(format!("frame/{name}"));
    group.throughput(Throughput::Elements(count));
    group.bench_function("write", |bencher| bencher.iter(|| fill::<T>(record, segment)));
    for (how, trust) in [("read", trusted), ("read checked", Trust::VALIDATE)] {
        group.bench_function(how, |bencher| {
            bencher.iter(|| {
                let mut sum = 0_u64;
                read::<T>(&segment[..end], trust, |record| sum = sum.wrapping_add(each(record)));
                sum
            });
        });
    }
    group.finish();
}

fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: eight initialised bytes a word, and u8 needs no alignment.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 8) }
}

fn all(criterion: &mut Criterion) {
    frames::<String>(criterion, "word", "streaming", |word| word.len() as u64);
    let event = EventParts { key: 1, value: 2, payload: &[7; 84] };
    frames::<Event>(criterion, "100 bytes", (&event).into(), |event| event.key() + event.value());
}

criterion_group!(benches, all);
criterion_main!(benches);
