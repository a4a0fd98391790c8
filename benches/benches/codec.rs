//! What it costs to write and read the head of a frame, for the routes that real messages have.

// The macros of criterion make functions without documentation.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portolan_runtime::{Address, Route, bare, wire};

/// A route of `hops` random local addresses, as channels and portals have them.
fn random_route(hops: usize) -> Route {
    let mut route = Route::new();
    for _ in 0..hops {
        route.push(Address::random());
    }
    route
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame_head");
    for hops in [1, 4, 8] {
        let (onward, back) = (random_route(hops), random_route(hops));
        let mut out = Vec::with_capacity(4096);
        group.bench_function(BenchmarkId::new("write", hops), |b| {
            b.iter(|| {
                out.clear();
                wire::put_message_head(
                    &mut out,
                    black_box(onward.as_slice()),
                    black_box(back.as_slice()),
                    131_072,
                );
                out.len()
            });
        });
        let mut frame = Vec::new();
        wire::put_message_head(&mut frame, onward.as_slice(), back.as_slice(), 1024);
        frame.resize(frame.len() + 1024, 7);
        group.bench_function(BenchmarkId::new("read", hops), |b| {
            b.iter(|| wire::decode(black_box(&frame)).expect("a frame that we wrote can be read"));
        });
    }
    group.finish();
}

fn bare_data(c: &mut Criterion) {
    let mut group = c.benchmark_group("bare");
    let data = vec![7; 200];
    let mut out = Vec::with_capacity(1024);
    group.bench_function("write_200_bytes", |b| {
        b.iter(|| {
            out.clear();
            bare::put_data(&mut out, black_box(&data));
            out.len()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = frames, bare_data
}
criterion_main!(benches);
