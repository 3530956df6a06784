//! Credit: what it costs to spend and to grant a segment's worth.
#![allow(missing_docs, reason = "criterion's macro writes the main function")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_shuffle::credit::{Granter, Spender};

const SEGMENT: u64 = 32 << 10;

fn credit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("credit");
    group.throughput(Throughput::Elements(1));
    group.bench_function("spend, receive, grant", |bencher| {
        let (mut granter, mut spender) = (Granter::new(4 * SEGMENT), Spender::default());
        spender.on_grant(granter.granted());
        bencher.iter(|| {
            assert!(spender.try_spend(black_box(SEGMENT)));
            granter.receive(SEGMENT).expect("it was granted");
            spender.on_grant(granter.grant(black_box(SEGMENT)));
        });
    });
    group.finish();
}

criterion_group!(benches, credit);
criterion_main!(benches);
