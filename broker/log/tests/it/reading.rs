//! Finding entries again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use broker_log::{Config, Error, Journal, Key, StreamSpan, Verify};

use crate::sim::SimDisk;
use crate::support::{Stored, append, index_file, key, numbered, open, segment_file};

fn numbers(journal: &Journal<SimDisk>, stream: u32, from: u64) -> Vec<u64> {
    let found = journal.reader().scan(stream, from, usize::MAX, u64::MAX).unwrap();
    found.iter().map(|found| found.key.first).collect()
}

fn fill(journal: &mut Journal<SimDisk>, stream: u32, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        append(journal, &[numbered(stream, number, 500)]).unwrap();
    }
}

#[test]
fn a_scan_respects_its_limits_and_always_answers_one_entry() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    fill(&mut journal, 1, 0..30);
    assert!(journal.segments().len() > 3);
    let reader = journal.reader();
    let count = |from, entries_max, bytes_max| reader.scan(1, from, entries_max, bytes_max).unwrap().len();
    assert_eq!(count(0, 0, u64::MAX), 0);
    assert_eq!(count(0, 1, u64::MAX), 1);
    assert_eq!(count(0, 12, u64::MAX), 12);
    assert_eq!(count(0, usize::MAX, 0), 1);
    assert_eq!(count(0, usize::MAX, 999), 1);
    assert_eq!(count(0, usize::MAX, 1000), 2);
    assert_eq!(count(0, usize::MAX, 10_000), 20);
    assert_eq!(count(25, usize::MAX, u64::MAX), 5);
    assert_eq!(count(30, usize::MAX, u64::MAX), 0);
    assert_eq!(reader.scan(2, 0, usize::MAX, u64::MAX).unwrap(), []);
}

#[test]
fn what_lies_beyond_a_range_is_neither_answered_nor_read() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let entry = |number: u64| Stored { key: key(1, number * 10, 10), payload: vec![1; 300] };
    append(&mut journal, &(0..40).map(entry).collect::<Vec<_>>()).unwrap();
    assert!(journal.segments().len() > 3);
    let reader = journal.reader();
    let firsts = |numbers| {
        let found = reader.scan_range(1, numbers, usize::MAX, u64::MAX).unwrap();
        found.iter().map(|found| found.key.first).collect::<Vec<_>>()
    };
    for at in [0, 5, 20, 38] {
        let first = at * 10;
        assert_eq!(firsts(first..=first), [first]);
        assert_eq!(firsts(first + 9..=first + 9), [first], "inside an entry");
        assert_eq!(firsts(first + 3..=first + 10), [first, first + 10]);
        let before = disk.bytes_read();
        firsts(first..=first + 9);
        // The index of a sealed segment is read in pages, the payloads are not.
        assert!(disk.bytes_read() - before < 4_096, "{} bytes for one entry", disk.bytes_read() - before);
    }
    assert_eq!(firsts(400..=u64::MAX), []);
}

#[test]
fn a_number_inside_an_entry_finds_the_entry_and_a_missing_number_does_not() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let entry = |first, count| Stored { key: key(7, first, count), payload: vec![1; 2000] };
    append(&mut journal, &[entry(10, 5), entry(15, 1), entry(20, 10)]).unwrap();
    assert_eq!(journal.segments().len(), 2);
    let first = |number| journal.reader().lookup(7, number).unwrap().map(|found| found.key.first);
    for (number, expected) in [
        (9, None),
        (10, Some(10)),
        (14, Some(10)),
        (15, Some(15)),
        (16, None),
        (20, Some(20)),
        (29, Some(20)),
        (30, None),
    ] {
        assert_eq!(first(number), expected, "{number}");
    }
    assert_eq!(numbers(&journal, 7, 12), [10, 15, 20]);
    assert_eq!(numbers(&journal, 7, 16), [20]);
}

#[test]
fn the_copy_that_was_appended_last_is_found() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let copy = |number, byte| Stored { key: key(1, number, 1), payload: vec![byte; 300] };
    append(&mut journal, &[copy(1, 1), copy(2, 1), copy(3, 1), copy(2, 2)]).unwrap();
    let payloads = |journal: &Journal<SimDisk>| -> Vec<_> {
        journal.reader().scan(1, 0, 9, u64::MAX).unwrap().iter().map(|found| found.payload[0]).collect()
    };
    assert_eq!(payloads(&journal), [1, 2, 1], "within the active segment");
    fill(&mut journal, 9, 0..10);
    assert_eq!(payloads(&journal), [1, 2, 1], "within a sealed segment");
    append(&mut journal, &[copy(1, 3), copy(100, 1)]).unwrap();
    fill(&mut journal, 9, 10..20);
    append(&mut journal, &[copy(3, 4)]).unwrap();
    assert_eq!(payloads(&journal), [3, 2, 4, 1], "across segments");
    drop(journal);
    assert_eq!(payloads(&open(&disk).unwrap().0), [3, 2, 4, 1], "after an open");
}

#[test]
fn long_indexes_are_searched_and_paged() {
    let config = broker_log::Config { segment_bytes_max: 1 << 20, ..Default::default() };
    let mut journal = Journal::open(SimDisk::default(), config).unwrap().0;
    for stream in 1..=2 {
        let batch: Vec<_> = (0..3000).map(|number| numbered(stream, number * 3, 50)).collect();
        append(&mut journal, &batch).unwrap();
    }
    append(&mut journal, &[Stored { key: None, payload: vec![0; 1 << 20] }]).unwrap();
    assert_eq!(journal.entries_in_memory(), 0);
    for stream in 1..=2 {
        let all: Vec<_> = (0..3000).map(|number| number * 3).collect();
        assert_eq!(numbers(&journal, stream, 0), all);
        for from in (0..9000).step_by(77) {
            let found = journal.reader().scan(stream, from, 1, 0).unwrap();
            assert_eq!(found[0].key, Key { stream, first: from.next_multiple_of(3), count: 1 });
        }
    }
}

#[test]
fn memory_holds_only_the_active_segment_s_entries() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let mut most = 0;
    for number in 0..2000 {
        append(&mut journal, &[numbered(1, number, 8)]).unwrap();
        most = most.max(journal.entries_in_memory());
    }
    // 40 bytes each; 4096 bytes a segment, its header included.
    assert_eq!(most, (4096 - 32) / 40);
    assert_eq!(journal.segments().len(), 2000_usize.div_ceil(most));
    assert_eq!(numbers(&journal, 1, 0).len(), 2000);
    drop(journal);
    assert!(open(&disk).unwrap().0.entries_in_memory() <= most);
}

#[test]
fn segments_tell_which_numbers_they_hold() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(3, 5, 100), Stored { key: key(1, 7, 4), payload: vec![] }, numbered(3, 9, 100)])
        .unwrap();
    let spans = [StreamSpan { stream: 1, first: 7, last: 10 }, StreamSpan { stream: 3, first: 5, last: 9 }];
    assert_eq!(journal.segments()[0].streams, spans);
    assert!(!journal.segments()[0].sealed);
    append(&mut journal, &[numbered(u32::MAX, 1, 4000)]).unwrap();
    let segments = journal.segments();
    assert_eq!((segments[0].sealed, &segments[0].streams[..]), (true, &spans[..]));
    assert_eq!(segments[1].streams, [StreamSpan { stream: u32::MAX, first: 1, last: 1 }]);
}

#[test]
fn space_is_given_back_and_carried_entries_stay() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    fill(&mut journal, 1, 0..100);
    let full = journal.bytes_on_disk();
    assert!(matches!(journal.remove_segment(1), Err(Error::SegmentInUse { id: 1, .. })), "no checkpoint yet");

    // Number 3 is still wanted.
    append(&mut journal, &[numbered(1, 3, 500)]).unwrap();
    let durable = journal.sync().unwrap();
    journal.checkpoint(durable, b"", &(1..durable.segment).collect::<Vec<_>>()).unwrap();
    let last = durable.segment;
    for id in 1..last {
        journal.remove_segment(id).unwrap();
        assert!(!disk.names().contains(&segment_file(id)));
    }
    for id in [last, last + 1, 1] {
        assert!(matches!(journal.remove_segment(id), Err(Error::SegmentInUse { .. })));
    }
    assert_eq!(journal.segments().len(), 1);
    assert!(journal.bytes_on_disk() < full / 10);
    let on_disk: usize = disk.names().iter().map(|name| disk.bytes(name).len()).sum();
    assert_eq!(journal.bytes_on_disk(), on_disk as u64);
    assert_eq!(numbers(&journal, 1, 0).first(), Some(&3));
    drop(journal);
    let (journal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.replay_from(), durable);
    assert_eq!(numbers(&journal, 1, 0).first(), Some(&3));
}

#[test]
fn no_segment_is_removed_that_the_older_checkpoint_may_need() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    fill(&mut journal, 1, 0..10);
    let older = journal.sync().unwrap();
    journal.checkpoint(older, b"older", &[]).unwrap();
    fill(&mut journal, 1, 10..40);
    let newer = journal.sync().unwrap();
    journal.checkpoint(newer, b"newer", &[older.segment, older.segment - 1]).unwrap();
    assert!(newer.segment > older.segment + 1);
    assert!(matches!(journal.remove_segment(older.segment), Err(Error::SegmentInUse { .. })));
    journal.remove_segment(older.segment - 1).unwrap();
}

#[test]
fn readers_see_every_entry_while_the_journal_writes_rolls_and_removes() {
    const COUNT: u64 = 3000;
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let (floor, durable) = (AtomicU64::new(0), AtomicU64::new(0));
    let reader = journal.reader();
    thread::scope(|scope| {
        for _ in 0..3 {
            let (reader, floor, durable) = (reader.clone(), &floor, &durable);
            scope.spawn(move || {
                while durable.load(Ordering::Acquire) < COUNT {
                    let until = durable.load(Ordering::Acquire);
                    let found = reader.scan(1, 0, usize::MAX, u64::MAX).unwrap();
                    let from = floor.load(Ordering::Acquire);
                    let numbers: Vec<_> =
                        found.iter().map(|found| found.key.first).filter(|n| (from..until).contains(n)).collect();
                    assert_eq!(numbers, (from..until.max(from)).collect::<Vec<_>>());
                }
            });
        }
        for number in 0..COUNT {
            append(&mut journal, &[numbered(1, number, 300)]).unwrap();
            let end = journal.sync().unwrap();
            durable.store(number + 1, Ordering::Release);
            if number % 100 == 99 {
                let last = |info: &broker_log::SegmentInfo| info.streams.last().map_or(0, |span| span.last);
                let dead: Vec<_> = journal.segments().into_iter().filter(|info| last(info) + 150 < number).collect();
                let ids: Vec<_> = dead.iter().map(|info| info.id).collect();
                journal.checkpoint(end, b"", &ids).unwrap();
                for info in dead {
                    floor.fetch_max(last(&info) + 1, Ordering::AcqRel);
                    journal.remove_segment(info.id).unwrap();
                }
            }
        }
    });
    assert!(journal.segments()[0].id > 100);
}

#[test]
fn an_open_reads_the_indexes_and_what_came_since_the_checkpoint_and_nothing_else() {
    let config = |verify| Config { segment_bytes_max: 64 << 10, verify, ahead_bytes: 0, ..Config::default() };
    let disk = SimDisk::default();
    let mut journal = Journal::open(disk.clone(), config(Verify::All)).unwrap().0;
    fill(&mut journal, 1, 0..4_000);
    let durable = journal.sync().unwrap();
    journal.checkpoint(durable, b"state", &[]).unwrap();
    fill(&mut journal, 1, 4_000..4_100);
    journal.sync().unwrap();
    let infos = journal.segments();
    let of = |file: fn(u64) -> String, from: u64| -> u64 {
        let sealed = infos.iter().filter(|info| info.sealed && info.id >= from);
        sealed.map(|info| disk.bytes(&file(info.id)).len() as u64).sum()
    };
    let last = disk.bytes(&segment_file(infos.last().unwrap().id)).len() as u64;
    // The rest are headers: at most 32 bytes a segment, and the checkpoint.
    let expected = of(index_file, 1) + of(segment_file, durable.segment) + last + 32 * infos.len() as u64 + 200;
    let sealed = of(segment_file, 1);
    assert!(infos.len() > 20 && expected * 4 < sealed, "{expected} of {sealed}");
    drop(journal);

    let before = disk.bytes_read();
    let (journal, recovered) = Journal::open(disk.clone(), config(Verify::SinceCheckpoint)).unwrap();
    let read = disk.bytes_read() - before;
    assert!(read <= expected, "{read} bytes are read, and {expected} would do");
    assert_eq!(recovered.unread, (1..durable.segment).collect::<Vec<_>>());
    assert_eq!(numbers(&journal, 1, 17).first(), Some(&17));
    drop(journal);

    let before = disk.bytes_read();
    Journal::open(disk.clone(), config(Verify::All)).unwrap();
    assert!(disk.bytes_read() - before > sealed, "everything is read when that is asked for");
}
