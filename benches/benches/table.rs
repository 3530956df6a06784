//! The table of a keyed state beside a plain hash map: a million numbers as keys, in no order.
#![allow(missing_docs, reason = "criterion's macro writes the main function")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::{DefaultHashBuilder, HashMap};
use millstream_api::{
    record::Key,
    state::{account::StateAccount, table::Table},
};
use millstream_benches::keyed_sum::splitmix;
use millstream_model::key_group::MaxParallelism;

const KEYS: u64 = 1_000_000;
const UPDATES: u64 = 1_000_000;

fn keys() -> impl Iterator<Item = u64> {
    (0..UPDATES).map(|index| splitmix(index) % KEYS)
}

fn upsert(table: &mut Table<u64, u64>, key: u64) -> u64 {
    table.upsert(
        <u64 as Key>::key_hash(key),
        key,
        || 0,
        |value| {
            *value = value.wrapping_add(key);
            *value
        },
    )
}

fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(UPDATES)).sample_size(10);
    let empty = || Table::<u64, u64>::new("sum", MaxParallelism(128), 0..128, StateAccount::unlimited());
    group.bench_function("insert, engine", |bencher| {
        bencher.iter_batched_ref(
            empty,
            |table| {
                keys().for_each(|key| {
                    black_box(upsert(table, key));
                })
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("insert, hashbrown", |bencher| {
        bencher.iter_batched_ref(
            HashMap::<u64, u64, DefaultHashBuilder>::default,
            |map| keys().for_each(|key| *map.entry(key).or_default() += black_box(key)),
            BatchSize::PerIteration,
        );
    });
    let mut filled = empty();
    keys().for_each(|key| {
        upsert(&mut filled, key);
    });
    group.bench_function("update, engine", |bencher| {
        bencher.iter(|| {
            keys().for_each(|key| {
                black_box(upsert(&mut filled, key));
            })
        });
    });
    let mut filled: HashMap<u64, u64, DefaultHashBuilder> = keys().map(|key| (key, 0)).collect();
    group.bench_function("update, hashbrown", |bencher| {
        bencher.iter(|| keys().for_each(|key| *filled.entry(key).or_default() += black_box(key)));
    });
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
