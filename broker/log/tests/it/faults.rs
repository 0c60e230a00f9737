//! A disk that refuses.

use broker_log::{Config, Entry, Error, Journal, PAYLOAD_BYTES_MAX, Position, SEGMENT_BYTES_MIN};

use crate::sim::SimDisk;
use crate::support::{append, key, numbered, open, replay, replay_all};

#[test]
fn a_failed_write_poisons_and_loses_nothing_that_was_synced() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 200)]).unwrap();
    journal.sync().unwrap();

    disk.fail_after(0);
    assert!(matches!(append(&mut journal, &[numbered(1, 2, 200)]), Err(Error::Io { action: "write", .. })));
    assert!(matches!(append(&mut journal, &[numbered(1, 3, 200)]), Err(Error::Poisoned)));

    drop(journal);
    assert_eq!(replay_all(&open(&disk).unwrap().0).unwrap(), [numbered(1, 1, 200)]);
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 200)]).unwrap();
    disk.fail_after(0);
    assert!(matches!(journal.sync(), Err(Error::Io { action: "sync", .. })));
    let counts = disk.counts();
    assert!(matches!(journal.sync(), Err(Error::Poisoned)));
    assert_eq!(disk.counts(), counts);
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_again_before_it_counts_as_durable() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 200)]).unwrap();
    journal.sync().unwrap();
    append(&mut journal, &[numbered(1, 2, 200)]).unwrap();
    // The failed sync marks the pages as clean without writing them.
    disk.fail_after(0);
    journal.sync().unwrap_err();
    drop(journal);

    let (journal, recovered) = open(&disk).unwrap();
    let found = replay_all(&journal).unwrap();
    assert_eq!(found, [numbered(1, 1, 200), numbered(1, 2, 200)]);
    drop(journal);
    for seed in 0..20 {
        disk.lose_power(seed);
        let (journal, again) = open(&disk).unwrap();
        assert_eq!(replay_all(&journal).unwrap(), found);
        assert_eq!(again.end, recovered.end);
    }
}

#[test]
fn a_segment_header_whose_sync_failed_is_written_again() {
    for seed in 0..40 {
        let disk = SimDisk::default();
        // Opening an empty disk creates the segment, writes its header and syncs it.
        disk.fail_after(2);
        assert!(matches!(open(&disk), Err(Error::Io { action: "sync", .. })));
        drop(open(&disk).unwrap());
        // The mark behind the header may have made the file longer without its bytes.
        disk.lose_power(seed);
        open(&disk).unwrap();
    }
}

#[test]
fn a_segment_whose_directory_was_not_synced_is_made_durable_by_the_next_open() {
    for seed in 0..20 {
        let disk = SimDisk::default();
        disk.fail_after(3);
        assert!(matches!(open(&disk), Err(Error::Io { action: "sync the directory of", .. })));
        let mut journal = open(&disk).unwrap().0;
        append(&mut journal, &[numbered(1, 1, 100)]).unwrap();
        journal.sync().unwrap();
        drop(journal);
        disk.lose_power(seed);
        assert_eq!(replay_all(&open(&disk).unwrap().0).unwrap(), [numbered(1, 1, 100)]);
    }
}

#[test]
fn a_full_disk_poisons_and_the_journal_opens_again_when_there_is_space() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    disk.capacity(Some(3000));
    let mut synced = 0;
    let error = loop {
        match append(&mut journal, &[numbered(1, synced, 400)]).and_then(|_| journal.sync()) {
            Ok(_) => synced += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull), "{error}");
    assert!(matches!(journal.sync(), Err(Error::Poisoned)));
    drop(journal);

    disk.capacity(None);
    let (mut journal, _) = open(&disk).unwrap();
    let expected: Vec<_> = (0..synced).map(|number| numbered(1, number, 400)).collect();
    assert!(synced > 3);
    assert_eq!(replay_all(&journal).unwrap(), expected);
    append(&mut journal, &[numbered(1, synced, 400)]).unwrap();
    journal.sync().unwrap();
}

#[test]
fn a_second_journal_on_the_same_disk_is_locked_out() {
    let disk = SimDisk::default();
    let journal = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(Error::Locked)));
    drop(journal);
    open(&disk).unwrap();
}

#[test]
fn a_batch_is_one_write_and_one_sync() {
    let disk = SimDisk::default();
    let mut journal = Journal::open(disk.clone(), Config::default()).unwrap().0;
    let before = disk.counts();
    let batch: Vec<_> = (0..500).map(|number| numbered(1, number, 100)).collect();
    append(&mut journal, &batch).unwrap();
    assert_eq!(disk.counts().writes - before.writes, 1);
    append(&mut journal, &batch).unwrap();
    assert_eq!(disk.counts().syncs, before.syncs);
    journal.sync().unwrap();
    assert_eq!(disk.counts().syncs - before.syncs, 1);
    // Two batches and the mark.
    assert_eq!(disk.counts().writes - before.writes, 3);
    journal.sync().unwrap();
    assert_eq!(disk.counts().syncs - before.syncs, 1, "there was nothing to sync");
}

#[test]
fn an_entry_that_breaks_a_limit_is_refused_and_its_batch_not_written() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let (largest, before) = (vec![7; PAYLOAD_BYTES_MAX as usize], disk.counts());
    let good = Entry { key: None, payload: &[&[1]] };
    let too_large = Entry { key: None, payload: &[&largest, &[7]] };
    assert!(matches!(
        journal.append(&[good, too_large]),
        Err(Error::PayloadTooLarge { payload_bytes }) if payload_bytes == u64::from(PAYLOAD_BYTES_MAX) + 1
    ));
    for bad in [key(1, 5, 0), key(1, u64::MAX, 1), key(1, u64::MAX - 4, 5)] {
        let bad = Entry { key: bad, payload: &[] };
        assert!(matches!(journal.append(&[good, bad]), Err(Error::BadKey { .. })));
    }
    assert_eq!(disk.counts(), before);
    assert_eq!(journal.end(), Position::START);

    let last = key(u32::MAX, u64::MAX - 5, 5);
    journal.append(&[good, Entry { key: last, payload: &[&largest] }, good]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let journal = open(&disk).unwrap().0;
    let found = journal.reader().lookup(u32::MAX, u64::MAX - 1).unwrap().unwrap();
    assert_eq!(found.payload, largest);
    assert_eq!(replay(&journal, Position::START).unwrap().len(), 3);
    let sizes: Vec<_> = journal.segments().iter().map(|segment| segment.bytes).collect();
    assert_eq!(sizes.len(), 3, "an entry larger than a segment stands alone");
    assert!(sizes[0] <= SEGMENT_BYTES_MIN && sizes[2] <= SEGMENT_BYTES_MIN);
}

#[test]
fn segments_stay_within_the_configured_size() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    // 32 bytes of segment header and two frames of 2032 bytes: the third frame would exceed 4096 bytes.
    append(&mut journal, &[numbered(1, 1, 2000), numbered(1, 2, 2000), numbered(1, 3, 2000)]).unwrap();
    let sizes: Vec<_> = journal.segments().iter().map(|segment| segment.bytes).collect();
    assert_eq!(sizes, [SEGMENT_BYTES_MIN, 32 + 2032]);
    assert_eq!(journal.durable(), Position { segment: 2, offset: 32 }, "rolling syncs the old segment");
}
