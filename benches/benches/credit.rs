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
        let (mut granter, mut spender) = (Granter::fixed(SEGMENT, &[4 * SEGMENT; 8]), Spender::default());
        spender.on_grant(granter.opening(3).granted);
        bencher.iter(|| {
            assert!(spender.try_spend(black_box(SEGMENT)));
            granter.receive(3, SEGMENT).expect("it was granted");
            granter.free(3, black_box(SEGMENT));
            granter.take_grants(|_, grant| spender.on_grant(grant));
        });
    });
    group.bench_function("the same where room is scarce", |bencher| {
        let (mut granter, mut spender) = (Granter::new(SEGMENT, 64 * SEGMENT, &[4 * SEGMENT; 32]), Spender::default());
        spender.on_grant(granter.opening(3).granted);
        bencher.iter(|| {
            assert!(spender.try_spend(black_box(SEGMENT)));
            if let Some(backlog) = spender.announce(SEGMENT) {
                granter.announce(3, backlog);
            }
            granter.receive(3, SEGMENT).expect("it was granted");
            granter.free(3, black_box(SEGMENT));
            granter.take_grants(|_, grant| spender.on_grant(grant));
        });
    });
    group.finish();
}

criterion_group!(benches, credit);
criterion_main!(benches);
