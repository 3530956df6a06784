//! What sealing and opening cost, by cipher and by library: a QUIC packet as pods send it, one of loopback's, and a TLS
//! record. See docs/decisions/0022.
#![allow(missing_docs, reason = "criterion's macro writes the main function")]

use std::{hint::black_box, time::Duration};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};

const SIZES: [usize; 3] = [1_424, 16_384, 65_000];

/// Both libraries have the same interface, by the same names.
macro_rules! library {
    ($module:ident, $library:ident) => {
        mod $module {
            use super::*;
            use $library::aead::{
                AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey,
                NONCE_LEN, Nonce, UnboundKey,
            };

            pub fn measure(group: &mut BenchmarkGroup<'_, WallTime>, size: usize) {
                let ciphers = [("aes-128-gcm", &AES_128_GCM), ("aes-256-gcm", &AES_256_GCM)];
                for (name, cipher) in ciphers.into_iter().chain([("chacha20", &CHACHA20_POLY1305)])
                {
                    let id = |what| {
                        BenchmarkId::new(format!("{}/{name}/{what}", stringify!($library)), size)
                    };
                    group.bench_function(id("seal"), |bencher| {
                        let (key, mut data) = (key(cipher), vec![7; size]);
                        bencher.iter(|| {
                            let tag = key.seal_in_place_separate_tag(
                                nonce(),
                                Aad::from([1; 20]),
                                black_box(&mut data),
                            );
                            black_box(tag.expect("it is short enough"))
                        });
                    });
                    group.bench_function(id("open"), |bencher| {
                        let (key, mut sealed) = (key(cipher), vec![7; size]);
                        key.seal_in_place_append_tag(nonce(), Aad::from([1; 20]), &mut sealed)
                            .expect("it is short");
                        // Opening destroys what is sealed, so each turn copies it anew; the copy is a small part.
                        let mut data = sealed.clone();
                        bencher.iter(|| {
                            data.copy_from_slice(black_box(&sealed));
                            let opened = key.open_in_place(nonce(), Aad::from([1; 20]), &mut data);
                            black_box(opened.expect("it was sealed so").len())
                        });
                    });
                }
            }

            fn key(cipher: &'static Algorithm) -> LessSafeKey {
                LessSafeKey::new(
                    UnboundKey::new(cipher, &vec![3; cipher.key_len()])
                        .expect("it is as long as it has to be"),
                )
            }

            fn nonce() -> Nonce {
                Nonce::assume_unique_for_key([5; NONCE_LEN])
            }
        }
    };
}

library!(by_ring, ring);
library!(by_aws_lc, aws_lc_rs);

fn ciphers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ciphers");
    group
        .measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(300))
        .sample_size(30);
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        by_ring::measure(&mut group, size);
        by_aws_lc::measure(&mut group, size);
    }
    group.finish();
}

criterion_group!(benches, ciphers);
criterion_main!(benches);
