//! Bits that change on the disk. Every byte of a history is hit once.

use broker_log::{Config, Error, Journal, Position, Recovered, Verify};

use crate::sim::SimDisk;
use crate::support::{
    Replayed, append, as_replayed, checkpoint_file, index_file, last_file, latest, numbered, open, replay,
    segment_file, small,
};

/// Three segments with two streams, synced after each batch, and two checkpoints.
fn history() -> (SimDisk, Replayed) {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    for number in 0..40 {
        append(&mut journal, &[numbered(1, number, 150), numbered(2, number, 40)]).unwrap();
        let durable = journal.sync().unwrap();
        if number == 17 || number == 20 {
            journal.checkpoint(durable, b"state", &[]).unwrap();
        }
    }
    let all = replay(&journal, Position::START).unwrap();
    assert_eq!(journal.segments().len(), 3);
    drop(journal);
    (disk, all)
}

/// Where the structure starts that holds a byte of a segment.
fn structure(all: &Replayed, segment: u64, byte: u64) -> u64 {
    let starts = all.iter().map(|(at, _)| *at).filter(|at| at.segment == segment && at.offset <= byte);
    starts.map(|at| at.offset).max().unwrap_or(0)
}

fn flip(disk: &SimDisk, name: &str, byte: usize) -> SimDisk {
    let copy = disk.copy();
    copy.alter(name, |bytes| bytes[byte] ^= 1 << (byte % 8));
    copy
}

#[test]
fn a_bit_flipped_in_any_synced_byte_is_refused_with_file_and_offset() {
    let (disk, all) = history();
    for segment in 1..=3 {
        let name = segment_file(segment);
        let size = disk.bytes(&name).len();
        // The last segment ends with a mark, which holds nothing.
        let end = if segment == 3 { size - 32 } else { size };
        for byte in 0..end {
            let error = open(&flip(&disk, &name, byte)).expect_err("a flipped bit goes unnoticed");
            let Error::Corrupt { file, offset, .. } = error else { panic!("{error}") };
            assert_eq!((file, offset), (name.clone(), structure(&all, segment, byte as u64)), "byte {byte}");
        }
        for byte in end..size {
            let journal = open(&flip(&disk, &name, byte)).unwrap().0;
            assert_eq!(replay(&journal, Position::START).unwrap(), all);
        }
    }
}

#[test]
fn without_a_mark_a_bit_flipped_in_the_last_batch_is_cut_there_and_reported() {
    let (disk, all) = history();
    let name = segment_file(3);
    disk.alter(&name, |bytes| bytes.truncate(bytes.len() - 32));
    let end = disk.bytes(&name).len();
    let (last_batch, _) = all[all.len() - 2];
    for byte in 32..end {
        let at = structure(&all, 3, byte as u64);
        match open(&flip(&disk, &name, byte)) {
            Ok((journal, recovered)) => {
                assert!(at >= last_batch.offset, "byte {byte} was known to be synced");
                assert_eq!(recovered.cut.unwrap().offset, at);
                let found = replay(&journal, Position::START).unwrap();
                assert_eq!(found[..], all[..found.len()]);
                assert_eq!(found.len(), all.iter().filter(|(one, _)| one.segment < 3 || one.offset < at).count());
            }
            Err(Error::Corrupt { file, offset, .. }) => assert_eq!((file, offset), (name.clone(), at)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_not_verified_at_open_is_refused_when_it_is_read() {
    let (disk, all) = history();
    let name = segment_file(1);
    let size = disk.bytes(&name).len();
    for byte in (32..size).step_by(7) {
        let config = Config { verify: Verify::SinceCheckpoint, ..small() };
        let journal = Journal::open(flip(&disk, &name, byte), config).unwrap().0;
        let at = structure(&all, 1, byte as u64);
        let stream = if all.iter().position(|(one, _)| one.offset == at).unwrap() % 2 == 0 { 1 } else { 2 };
        for error in [
            replay(&journal, Position::START).unwrap_err(),
            journal.reader().scan(stream, 0, usize::MAX, u64::MAX).unwrap_err(),
        ] {
            let Error::Corrupt { file, offset, .. } = error else { panic!("{error}") };
            assert_eq!((file, offset), (name.clone(), at), "byte {byte}");
        }
        let other = 3 - stream;
        let found = as_replayed(journal.reader().scan(other, 0, usize::MAX, u64::MAX).unwrap());
        assert_eq!(found, latest(&all, other, 0));
    }
}

#[test]
fn an_index_file_that_is_damaged_cut_or_missing_is_rebuilt() {
    let (disk, all) = history();
    let name = index_file(2);
    let good = disk.bytes(&name);
    let check = |disk: &SimDisk, verify| {
        let journal = Journal::open(disk.clone(), Config { verify, ..small() }).unwrap().0;
        for stream in [1, 2] {
            let found = as_replayed(journal.reader().scan(stream, 0, usize::MAX, u64::MAX).unwrap());
            assert_eq!(found, latest(&all, stream, 0));
        }
        assert_eq!(disk.bytes(&name), good);
    };
    for verify in [Verify::All, Verify::SinceCheckpoint] {
        for byte in 0..good.len() {
            check(&flip(&disk, &name, byte), verify);
        }
        for size in (0..good.len()).step_by(5) {
            let copy = disk.copy();
            copy.alter(&name, |bytes| bytes.truncate(size));
            check(&copy, verify);
        }
        let copy = disk.copy();
        copy.delete(&name);
        check(&copy, verify);
    }
}

#[test]
fn an_index_entry_that_is_damaged_after_the_open_is_refused() {
    let (disk, _) = history();
    let journal = open(&disk).unwrap().0;
    let name = index_file(1);
    let size = disk.bytes(&name).len();
    // The first of the entries, which stand behind a header and a directory of two streams.
    disk.alter(&name, |bytes| bytes[40 + 2 * 24 + 9] ^= 1);
    assert!(size > 200);
    let error = journal.reader().scan(1, 0, 1, 1).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, offset: 88, .. } if *file == name), "{error}");
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let (disk, all) = history();
    let name = checkpoint_file(2);
    for byte in 0..disk.bytes(&name).len() {
        let copy = flip(&disk, &name, byte);
        let (mut journal, recovered) = open(&copy).unwrap();
        assert_eq!(recovered.checkpoints_damaged, std::slice::from_ref(&name));
        let covers = recovered.replay_from();
        assert_eq!(covers, all[36].0, "byte {byte}");
        assert_eq!(replay(&journal, covers).unwrap(), all[36..]);
        journal.checkpoint(recovered.end, b"new", &[]).unwrap();
        assert!(!copy.names().contains(&name));
        assert!(copy.names().contains(&checkpoint_file(3)));
    }
}

#[test]
fn when_all_checkpoints_are_damaged_the_whole_journal_is_replayed_if_it_is_still_there() {
    let (disk, all) = history();
    for number in [1, 2] {
        disk.alter(&checkpoint_file(number), |bytes| bytes[60] ^= 1);
    }
    let (journal, recovered) = open(&disk.copy()).unwrap();
    assert_eq!(recovered.checkpoint, None);
    assert_eq!(replay(&journal, recovered.replay_from()).unwrap(), all);

    disk.delete(&segment_file(1));
    let error = open(&disk).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, offset: 0, .. } if *file == checkpoint_file(2)), "{error}");
}

#[test]
fn a_segment_that_is_missing_cut_or_swapped_is_refused() {
    let (disk, all) = history();
    let copy = disk.copy();
    copy.delete(&segment_file(2));
    assert!(matches!(open(&copy), Err(Error::MissingSegment { id: 2 })));

    // The checkpoint knows nothing of segment 3, but of segment 2, in which it was written.
    let copy = disk.copy();
    copy.delete(&segment_file(3));
    copy.delete(&segment_file(2));
    assert!(matches!(open(&copy), Err(Error::MissingSegment { id: 2 })));

    let size = disk.bytes(&segment_file(1)).len();
    for cut in (0..size).step_by(11) {
        let copy = disk.copy();
        copy.alter(&segment_file(1), |bytes| bytes.truncate(cut));
        assert!(matches!(open(&copy), Err(Error::Corrupt { file, .. }) if file == segment_file(1)), "cut at {cut}");
    }

    // Cut between two frames and without an index: the next segment's header knows better.
    let copy = disk.copy();
    let (boundary, _) = all[20];
    copy.alter(&segment_file(1), |bytes| bytes.truncate(usize::try_from(boundary.offset).unwrap()));
    copy.delete(&index_file(1));
    let error = open(&copy).unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt { file, offset, .. } if *file == segment_file(1) && *offset == boundary.offset)
    );

    let copy = disk.copy();
    copy.alter(&segment_file(1), |bytes| *bytes = disk.bytes(&segment_file(2)));
    assert!(matches!(open(&copy), Err(Error::Corrupt { file, offset: 0, .. }) if file == segment_file(1)));
}

#[test]
fn a_checkpoint_knows_what_was_synced_when_it_was_written() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 300), numbered(1, 2, 300)]).unwrap();
    let durable = journal.sync().unwrap();
    journal.checkpoint(Position::START, b"", &[]).unwrap();
    let (name, end) = (last_file(&journal), usize::try_from(durable.offset).unwrap());
    drop(journal);
    for cut in 0..end {
        let copy = disk.copy();
        copy.alter(&name, |bytes| bytes.truncate(cut));
        assert!(matches!(open(&copy), Err(Error::Corrupt { file, .. }) if file == name), "cut at {cut}");
    }
}

fn open_quickly(disk: &SimDisk) -> Result<(Journal<SimDisk>, Recovered), Error> {
    Journal::open(disk.clone(), Config { verify: Verify::SinceCheckpoint, ..small() })
}

/// Checks all that the open did not read, in pieces of this size.
fn check_unread(journal: &Journal<SimDisk>, unread: &[u64], bytes_max: u64) -> Result<(), Error> {
    for &segment in unread {
        let mut next = Some(0);
        while let Some(offset) = next {
            next = journal.reader().check(segment, offset, bytes_max)?;
        }
    }
    Ok(())
}

#[test]
fn what_an_open_has_not_read_is_found_damaged_by_a_check_and_then_refused_until_it_is_mended() {
    let (disk, _) = history();
    let name = segment_file(1);
    for byte in (32..disk.bytes(&name).len()).step_by(37) {
        let damaged = flip(&disk, &name, byte);
        let (journal, recovered) = open_quickly(&damaged).unwrap();
        assert_eq!(recovered.unread, [1]);
        let error = check_unread(&journal, &recovered.unread, 300).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { file, .. } if *file == name), "{error}");
        drop(journal);
        for _ in 0..2 {
            let again = open_quickly(&damaged).unwrap_err();
            assert_eq!(again.to_string(), error.to_string());
        }
        damaged.alter(&name, |bytes| *bytes = disk.bytes(&name));
        let (journal, recovered) = open_quickly(&damaged).unwrap();
        assert_eq!(recovered.unread, [0; 0], "what was damaged is read whole once more");
        drop(journal);
        let (journal, recovered) = open_quickly(&damaged).unwrap();
        assert_eq!(recovered.unread, [1]);
        check_unread(&journal, &recovered.unread, 300).unwrap();
    }
}

#[test]
fn a_read_that_meets_damage_keeps_the_journal_from_being_opened_again() {
    let (disk, _) = history();
    let damaged = flip(&disk, &segment_file(1), 500);
    let journal = open_quickly(&damaged).unwrap().0;
    let streams = [1, 2].map(|stream| journal.reader().scan(stream, 0, usize::MAX, u64::MAX).is_err());
    assert!(streams.contains(&true));
    drop(journal);
    assert!(matches!(open_quickly(&damaged), Err(Error::Corrupt { .. })));
}

#[test]
fn a_segment_that_is_removed_while_it_is_checked_is_no_damage() {
    let (disk, _) = history();
    let (mut journal, recovered) = open_quickly(&disk).unwrap();
    journal.checkpoint(recovered.end, b"", &[1]).unwrap();
    journal.checkpoint(recovered.end, b"", &[1]).unwrap();
    journal.remove_segment(1).unwrap();
    check_unread(&journal, &recovered.unread, 300).unwrap();
}

#[test]
fn a_whole_check_finds_what_an_open_would_refuse_and_changes_nothing() {
    let (disk, _) = history();
    let before: Vec<_> = disk.names().iter().map(|name| disk.bytes(name)).collect();
    let checked = broker_log::check(&disk).unwrap();
    assert_eq!((checked.segments, checked.checkpoint, checked.torn_bytes), (3, Some(2), 0));
    let after: Vec<_> = disk.names().iter().map(|name| disk.bytes(name)).collect();
    assert_eq!(after, before);
    for segment in 1..=3 {
        let name = segment_file(segment);
        for byte in (0..disk.bytes(&name).len() - 32).step_by(23) {
            let error = broker_log::check(&flip(&disk, &name, byte)).unwrap_err();
            assert!(matches!(&error, Error::Corrupt { file, .. } if *file == name), "byte {byte}: {error}");
        }
    }
    let torn = disk.copy();
    torn.alter(&segment_file(3), |bytes| bytes.extend([7; 11]));
    assert_eq!(broker_log::check(&torn).unwrap().torn_bytes, 11);
    let journal = open(&disk).unwrap().0;
    assert!(matches!(broker_log::check(&disk), Err(Error::Locked)));
    drop(journal);
}

#[test]
fn a_segment_that_vanishes_before_the_checkpoint_is_missed_unless_the_checkpoint_called_it_dead() {
    let (disk, _) = history();
    let mut journal = open(&disk).unwrap().0;
    let end = journal.end();
    journal.checkpoint(end, b"", &[2]).unwrap();
    drop(journal);
    for verify in [Verify::All, Verify::SinceCheckpoint] {
        let copy = disk.copy();
        copy.delete(&segment_file(1));
        let error = Journal::open(copy.clone(), Config { verify, ..small() }).unwrap_err();
        assert!(matches!(error, Error::MissingSegment { id: 1 }), "{error}");
        assert!(matches!(broker_log::check(&copy), Err(Error::MissingSegment { id: 1 })));
        let copy = disk.copy();
        copy.delete(&segment_file(2));
        Journal::open(copy, Config { verify, ..small() }).unwrap();
    }
}

#[test]
fn a_segment_that_the_newest_checkpoint_needs_is_not_removed() {
    let (disk, _) = history();
    let mut journal = open(&disk).unwrap().0;
    let end = journal.end();
    for _ in 0..2 {
        journal.checkpoint(end, b"", &[2]).unwrap();
    }
    assert!(matches!(journal.remove_segment(1), Err(Error::SegmentInUse { .. })));
    journal.remove_segment(2).unwrap();
    drop(journal);
    let mut journal = open(&disk).unwrap().0;
    assert!(matches!(journal.remove_segment(1), Err(Error::SegmentInUse { .. })), "also after an open");
}

#[test]
fn a_checkpoint_beyond_its_limit_is_refused_and_changes_nothing() {
    let disk = SimDisk::default();
    let config = Config { checkpoint_bytes_max: 10, ..small() };
    let mut journal = Journal::open(disk.clone(), config).unwrap().0;
    let before = disk.names();
    let refused = journal.checkpoint(Position::START, &[1; 11], &[]).unwrap_err();
    assert_eq!(refused.to_string(), "a checkpoint of 11 bytes exceeds 10 bytes");
    assert_eq!(disk.names(), before);
    journal.checkpoint(Position::START, &[1; 10], &[]).unwrap();
}
