//! What the journal costs by itself: `cargo bench -p broker-log`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::time::Duration;

use broker_log::{Config, Entry, Journal, Key, OsDisk, Verify};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

/// The payload of an entry: a publication of a hundred small messages.
const PAYLOAD_BYTES: usize = 11_000;
/// Entries that are there when they are read.
const ENTRIES: u64 = 1_000;

fn open(dir: &TempDir) -> Journal {
    let config = Config { verify: Verify::SinceCheckpoint, ..Config::default() };
    Journal::open(OsDisk::new(dir.path()).unwrap(), config).unwrap().0
}

fn key(number: u64) -> Option<Key> {
    Some(Key { stream: 1, first: number * 100 + 1, count: 100 })
}

fn journal(criterion: &mut Criterion) {
    let payload = vec![7; PAYLOAD_BYTES];
    let pieces: [&[u8]; 1] = [&payload];
    let mut group = criterion.benchmark_group("journal");
    for entries in [1, 10, 100] {
        group.throughput(Throughput::Bytes(entries * PAYLOAD_BYTES as u64));
        for (name, synced) in [("append", false), ("append and sync", true)] {
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                let dir = TempDir::new().unwrap();
                let mut journal = open(&dir);
                let mut number = 0;
                bencher.iter(|| {
                    let batch: Vec<Entry<'_>> =
                        (number..number + entries).map(|number| Entry { key: key(number), payload: &pieces }).collect();
                    number += entries;
                    journal.append(&batch).unwrap();
                    if synced {
                        journal.sync().unwrap();
                    }
                    // Else the disk fills up: nothing that was written is read again.
                    let mut old = journal.segments();
                    old.retain(|segment| segment.sealed);
                    if !old.is_empty() {
                        journal.sync().unwrap();
                        let dead: Vec<u64> = old.iter().map(|segment| segment.id).collect();
                        journal.checkpoint(journal.durable(), &[], &dead).unwrap();
                        dead.iter().for_each(|id| drop(journal.remove_segment(*id)));
                    }
                });
            });
        }
    }
    group.throughput(Throughput::Bytes(ENTRIES * PAYLOAD_BYTES as u64));
    group.bench_function("read", |bencher| {
        let dir = TempDir::new().unwrap();
        let mut journal = open(&dir);
        let all: Vec<Entry<'_>> = (0..ENTRIES).map(|number| Entry { key: key(number), payload: &pieces }).collect();
        journal.append(&all).unwrap();
        let reader = journal.reader();
        bencher.iter(|| reader.scan(1, 1, usize::MAX, u64::MAX).unwrap().len());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = journal
}
criterion_main!(benches);
