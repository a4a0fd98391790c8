//! What it costs to seal and to open a record, for each suite and each provider, from 64 B to 256 KiB; in place, with the
//! rekeying that the protocol asks for.

// The macros of criterion make functions without documentation.
#![allow(missing_docs)]

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use portolan_secure_channel::aead::{AeadKey, Provider, Suite, nonce};
use portolan_secure_channel::record::{HEADER_FRONT, OVERHEAD, Opener, PREFIX_LEN, Sealer};
use zeroize::Zeroizing;

const SIZES: [usize; 5] = [64, 1024, 16 * 1024, 64 * 1024, 256 * 1024];
const SUITES: [(&str, Suite); 2] = [
    ("aes-256-gcm", Suite::Aes256Gcm),
    ("chacha20-poly1305", Suite::ChaCha20Poly1305),
];

fn seal(c: &mut Criterion) {
    for (name, suite) in SUITES {
        let mut group = c.benchmark_group(format!("seal/{name}"));
        for size in SIZES {
            let mut sealer = Sealer::new(suite, Zeroizing::new([7; 32]));
            let mut buffer = vec![0; size + OVERHEAD];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| sealer.seal(&mut buffer).expect("there is room"));
            });
        }
        group.finish();
    }
}

fn open(c: &mut Criterion) {
    for (name, suite) in SUITES {
        let mut group = c.benchmark_group(format!("open/{name}"));
        for size in SIZES {
            let mut sealer = Sealer::new(suite, Zeroizing::new([7; 32]));
            let mut opener = Opener::new(suite, Zeroizing::new([7; 32]));
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                // Each record opens once, so each is sealed first, which is not measured.
                b.iter_batched_ref(
                    || {
                        let mut record = vec![0; size + OVERHEAD];
                        sealer.seal(&mut record).expect("there is room");
                        record
                    },
                    |record| {
                        opener
                            .open(record)
                            .map(drop)
                            .expect("a record that we sealed opens")
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

/// Routes of two random addresses each, as on the way through a relay.
const HEADER: usize = 170;

/// What a record costs that carries another one: sealing and opening the header alone, and, for comparison, all of it. From
/// which size on the former is cheaper decides `HEADER_ONLY_FROM`.
fn carried(c: &mut Criterion) {
    let key = || Zeroizing::new([7; 32]);
    for (name, suite) in SUITES {
        let mut group = c.benchmark_group(format!("seal_and_open_a_carried_record/{name}"));
        for size in [64, 256, 512, 1024, 2048, 128 * 1024] {
            group.throughput(Throughput::Bytes(size as u64));
            let mut ends = (Sealer::new(suite, key()), Opener::new(suite, key()));
            let mut whole = vec![0; HEADER + size + OVERHEAD];
            group.bench_function(BenchmarkId::new("whole", size), |b| {
                b.iter(|| {
                    ends.0.seal(&mut whole).expect("there is room");
                    ends.1.open(&mut whole).map(drop).expect("it was sealed")
                });
            });
            let mut ends = (
                Sealer::new(suite, key()),
                Opener::new(suite, key()).accept_sealed_headers(true),
            );
            let mut headed = vec![0; HEADER_FRONT + HEADER + size];
            group.bench_function(BenchmarkId::new("header", size), |b| {
                b.iter(|| {
                    let sealed = HEADER + PREFIX_LEN;
                    ends.0.seal_header(&mut headed, sealed).expect("there is room");
                    ends.1.open(&mut headed).map(drop).expect("it was sealed")
                });
            });
        }
        group.finish();
    }
}

fn providers(c: &mut Criterion) {
    let mut group = c.benchmark_group("aead_seal_64_kib");
    let size = 64 * 1024;
    let mut data = vec![0; size];
    group.throughput(Throughput::Bytes(size as u64));
    for (name, suite) in SUITES {
        for provider in [Provider::AwsLc, Provider::RustCrypto] {
            let Some(key) = AeadKey::with_provider(provider, suite, &[7; 32]) else {
                continue;
            };
            group.bench_function(BenchmarkId::new(name, format!("{provider:?}")), |b| {
                b.iter(|| key.seal(&nonce(1), &[], &mut data).expect("it is not too long"));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = seal, open, carried, providers
}
criterion_main!(benches);
