//! What it costs to encode and decode what the journal holds: `cargo bench -p broker --features benching`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::time::Duration;

use broker::benching::{Encoded, Messages};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for (count, bytes) in [(1, 100), (100, 100), (1_000, 100), (100, 1_000), (100, 10_000)] {
        let messages = Messages::new(count, bytes);
        let encoded = Encoded::new(messages.clone());
        let id = format!("{count} of {bytes} B");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("encode a publication", &id), |bencher| {
            bencher.iter_batched(|| messages.clone(), Encoded::new, criterion::BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("decode its messages", &id), |bencher| {
            bencher.iter(|| encoded.messages());
        });
        group.bench_function(BenchmarkId::new("decode its record", &id), |bencher| {
            bencher.iter(|| encoded.has_record());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = codec
}
criterion_main!(benches);
