//! The table of a keyed state beside a plain hash map: a million numbers as keys, in no order; and what it costs to charge
//! an account for what values hold.
//!
//! Every table has an account, so what charging costs is seen beside the same table by hand, which has none: its hashes, its
//! comparison and its values are the engine's. Values of numbers hold nothing, and of them only growth is charged; texts are
//! charged at each change.
#![allow(missing_docs, reason = "criterion's macro writes the main function")]

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use millstream_api::{
    record::Key,
    state::{
        account::{SlotAccount, StateAccount},
        table::Table,
    },
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

/// Few enough to lie in the caches: there is nothing beside the instructions to wait for.
const TEXT_KEYS: u64 = 10_000;
const TEXT_UPDATES: u64 = 100_000;

fn text_keys() -> impl Iterator<Item = u64> {
    (0..TEXT_UPDATES).map(|index| splitmix(index) % TEXT_KEYS)
}

/// Longer or shorter by one, within what it has or not.
fn edit(text: &mut String, key: u64) {
    if text.len() > 24 {
        *text = String::new();
    }
    text.push((b'a' + (key % 26) as u8) as char);
}

/// The engine's without groups and without an account.
struct ByHand(HashTable<(u64, String)>);

impl ByHand {
    fn upsert(&mut self, key: u64) {
        let hash = |key: u64| u64::from(<u64 as Key>::key_hash(key).0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match self.0.find_mut(hash(key), |entry| entry.0 == key) {
            Some(entry) => edit(&mut entry.1, key),
            None => {
                let mut text = String::new();
                edit(&mut text, key);
                self.0.insert_unique(hash(key), (key, text), |entry| hash(entry.0));
            }
        }
    }
}

fn account(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("account");
    group.throughput(Throughput::Elements(TEXT_UPDATES)).sample_size(10);
    // As in a slot: there is a limit, and it is never reached.
    let of_slot = || StateAccount::new(Arc::new(SlotAccount::new(1 << 30)), "bench".into());
    let mut table = Table::<u64, String>::new("text", MaxParallelism(128), 0..128, of_slot());
    let mut update = move || {
        for key in text_keys() {
            table.upsert(<u64 as Key>::key_hash(key), key, String::new, |text| edit(text, key));
        }
    };
    update();
    group.bench_function("texts, with", |bencher| bencher.iter(&mut update));
    let mut table = ByHand(HashTable::new());
    let mut update = move || text_keys().for_each(|key| table.upsert(key));
    update();
    group.bench_function("texts, without, by hand", |bencher| bencher.iter(&mut update));
    let account = of_slot();
    group.bench_function("nothing but changes", |bencher| {
        bencher.iter(|| {
            for key in text_keys() {
                let bytes = (key % 64) as usize;
                black_box(&account).change(0, bytes);
                black_box(&account).change(bytes, 0);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, table, account);
criterion_main!(benches);
