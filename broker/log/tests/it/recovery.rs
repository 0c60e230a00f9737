//! Torn tails, and what may look like one.

use broker_log::{Error, Position, SEGMENT_HEADER_BYTES};

use crate::sim::SimDisk;
use crate::support::{Stored, append, index_file, last_file, numbered, open, replay, replay_all, segment_file};

const MARK_BYTES: usize = 32;

fn offset(position: Position) -> usize {
    usize::try_from(position.offset).unwrap()
}

#[test]
fn a_hole_before_sound_frames_is_cut_when_it_was_never_synced() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 100)]).unwrap();
    let synced = journal.sync().unwrap();
    append(&mut journal, &[numbered(1, 2, 100), numbered(1, 3, 100)]).unwrap();
    let name = last_file(&journal);
    drop(journal);
    disk.alter(&name, |bytes| bytes[offset(synced)..][..60].fill(0));

    let (mut journal, recovered) = open(&disk).unwrap();
    assert_eq!(replay_all(&journal).unwrap(), [numbered(1, 1, 100)]);
    let cut = recovered.cut.unwrap();
    assert_eq!((cut.file, cut.offset, cut.bytes), (name, synced.offset, 2 * 132));
    // The sound frame behind the hole must not come back behind what is appended now.
    append(&mut journal, &[numbered(1, 2, 100)]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (journal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.cut, None);
    assert_eq!(replay_all(&journal).unwrap(), [numbered(1, 1, 100), numbered(1, 2, 100)]);
}

#[test]
fn a_hole_before_a_frame_that_was_written_after_its_sync_is_refused() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 100)]).unwrap();
    let hole = journal.sync().unwrap();
    append(&mut journal, &[numbered(1, 2, 100)]).unwrap();
    journal.sync().unwrap();
    // One synced frame, two unsynced ones of which the first is torn as well: its header is witness enough.
    append(&mut journal, &[numbered(1, 3, 100)]).unwrap();
    let name = last_file(&journal);
    drop(journal);
    disk.alter(&name, |bytes| {
        bytes[offset(hole)..][..60].fill(0);
        let size = bytes.len();
        bytes.truncate(size - 20);
    });
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt { file, offset, .. } if *file == name && *offset == hole.offset),
        "{error}"
    );
}

#[test]
fn bytes_in_a_payload_that_look_like_frames_are_no_witnesses() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    while journal.end().segment == 1 {
        append(&mut journal, &[numbered(1, 1, 100)]).unwrap();
        journal.sync().unwrap();
    }
    let torn = journal.end();
    assert_eq!(torn.segment, 2);
    // Someone got hold of the first segment and publishes it, so that each frame lands at the offset it had there,
    // where it would testify that the torn frame was synced.
    let copy = disk.bytes(&segment_file(1))[offset(torn) + 32..].to_vec();
    append(&mut journal, &[Stored { key: None, payload: copy.clone() }]).unwrap();
    let name = last_file(&journal);
    let all = replay_all(&journal).unwrap();
    drop(journal);
    assert!(disk.bytes(&name).ends_with(&copy));
    disk.alter(&name, |bytes| bytes[offset(torn)] ^= 1);
    let (journal, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.cut.unwrap().offset, torn.offset);
    assert_eq!(replay_all(&journal).unwrap(), all[..all.len() - 1]);
}

#[test]
fn a_frame_behind_a_mark_that_should_have_been_overwritten_is_cut() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 100)]).unwrap();
    let end = offset(journal.sync().unwrap());
    let name = last_file(&journal);
    let mark = disk.bytes(&name)[end..].to_vec();
    assert_eq!(mark.len(), MARK_BYTES);
    // The first of two unsynced entries is as long as a mark, and only the second one reaches the disk.
    append(&mut journal, &[numbered(1, 2, 0), numbered(1, 3, 100)]).unwrap();
    drop(journal);
    disk.alter(&name, |bytes| bytes[end..end + MARK_BYTES].copy_from_slice(&mark));
    let (journal, recovered) = open(&disk).unwrap();
    assert_eq!(replay_all(&journal).unwrap(), [numbered(1, 1, 100)]);
    assert_eq!(recovered.cut.unwrap().bytes, 132);
}

#[test]
fn a_mark_is_neither_an_entry_nor_space() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    for number in 1..=5 {
        append(&mut journal, &[numbered(1, number, 10)]).unwrap();
        journal.sync().unwrap();
    }
    assert_eq!(journal.end().offset, SEGMENT_HEADER_BYTES + 5 * 42);
    let (size, end) = (disk.bytes(&last_file(&journal)).len(), offset(journal.end()));
    assert_eq!(size, end + MARK_BYTES);
    drop(journal);
    let (journal, recovered) = open(&disk).unwrap();
    assert_eq!((recovered.cut, offset(recovered.end)), (None, end));
    assert_eq!(replay_all(&journal).unwrap().len(), 5);
}

#[test]
fn a_segment_whose_header_never_reached_the_disk_is_begun_again() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let first: Vec<_> = (0..3).map(|number| numbered(1, number, 1000)).collect();
    append(&mut journal, &first).unwrap();
    append(&mut journal, &[numbered(1, 3, 3000)]).unwrap();
    assert_eq!(journal.end().segment, 2);
    drop(journal);
    for size in 0..=offset(Position::START) {
        let copy = disk.copy();
        copy.alter(&segment_file(2), |bytes| {
            bytes.truncate(size);
            // At its full size the header is one that was written in part.
            bytes[size / 2..].fill(0);
        });
        let (mut journal, recovered) = open(&copy).unwrap();
        assert_eq!(recovered.end, Position { segment: 2, offset: SEGMENT_HEADER_BYTES });
        append(&mut journal, &[numbered(1, 3, 3000), numbered(1, 4, 3000)]).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let journal = open(&copy).unwrap().0;
        assert_eq!(journal.reader().scan(1, 0, 99, u64::MAX).unwrap().len(), 5);
    }
}

#[test]
fn a_check_takes_a_torn_header_behind_which_a_checkpoint_knows_nothing_as_an_open_does() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 0, 3000)]).unwrap();
    append(&mut journal, &[numbered(1, 1, 3000)]).unwrap();
    assert_eq!(journal.end().segment, 2);
    drop(journal);
    disk.alter(&segment_file(2), |bytes| bytes.truncate(7));
    let (mut journal, recovered) = open(&disk).unwrap();
    journal.checkpoint(recovered.end, b"", &[]).unwrap();
    drop(journal);
    disk.alter(&segment_file(2), |bytes| bytes.truncate(7));
    broker_log::check(&disk).unwrap();
    assert_eq!(open(&disk).unwrap().1.end, Position { segment: 2, offset: SEGMENT_HEADER_BYTES });
}

#[test]
fn a_segment_that_was_sealed_before_a_crash_is_not_taken_for_torn() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let entries: Vec<_> = (0..4).map(|number| numbered(1, number, 1000)).collect();
    append(&mut journal, &entries).unwrap();
    drop(journal);
    // The crash came after the seal and before the next segment: only the index file knows that all was synced.
    disk.delete(&segment_file(2));
    let sound = disk.copy();
    assert_eq!(replay_all(&open(&sound).unwrap().0).unwrap(), entries[..3]);
    assert!(!sound.names().contains(&index_file(1)), "the segment is written to again");
    disk.alter(&segment_file(1), |bytes| {
        let size = bytes.len();
        bytes[size - 1] ^= 1;
    });
    assert!(matches!(open(&disk), Err(Error::Corrupt { offset, .. }) if offset == 32 + 2 * 1032));
}

#[test]
fn an_index_file_of_an_earlier_seal_is_not_believed() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let entries: Vec<_> = (0..4).map(|number| numbered(1, number, 1000)).collect();
    append(&mut journal, &entries).unwrap();
    drop(journal);
    let earlier = disk.bytes(&index_file(1));
    // The crash takes the next segment away, so that the first one grows and is sealed a second time.
    disk.delete(&segment_file(2));
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 3, 100), numbered(1, 4, 3900)]).unwrap();
    drop(journal);
    // The second crash leaves the old index and a next segment that never began.
    let later = disk.bytes(&index_file(1));
    disk.alter(&index_file(1), |bytes| *bytes = earlier);
    disk.alter(&segment_file(2), Vec::clear);
    let journal = open(&disk).unwrap().0;
    assert_eq!(journal.reader().scan(1, 0, 99, u64::MAX).unwrap().len(), 4);
    assert_eq!(disk.bytes(&index_file(1)), later);
}

#[test]
fn a_segment_is_synced_before_the_next_one_begins() {
    for seed in 0..10 {
        let disk = SimDisk::default();
        let mut journal = open(&disk).unwrap().0;
        append(&mut journal, &[numbered(1, 1, 2000), numbered(1, 2, 3000)]).unwrap();
        drop(journal);
        disk.lose_power(seed);
        assert_eq!(replay_all(&open(&disk).unwrap().0).unwrap()[0], numbered(1, 1, 2000));
    }
}

#[test]
fn an_index_file_is_durable_before_the_next_segment_has_frames() {
    for seed in 0..10 {
        let disk = SimDisk::default();
        let mut journal = open(&disk).unwrap().0;
        append(&mut journal, &[numbered(1, 1, 2000), numbered(1, 2, 3000)]).unwrap();
        let index = disk.bytes(&index_file(1));
        drop(journal);
        disk.lose_power(seed);
        assert_eq!(disk.bytes(&index_file(1)), index);
    }
}

#[test]
fn replay_starts_at_any_boundary_and_nowhere_else() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    let entries: Vec<_> = (0..20).map(|number| numbered(1, number, 600)).collect();
    append(&mut journal, &entries).unwrap();
    let all = replay(&journal, Position::START).unwrap();
    for (at, (position, _)) in all.iter().enumerate() {
        assert_eq!(replay(&journal, *position).unwrap(), all[at..]);
        let inside = Position { offset: position.offset + 1, ..*position };
        assert!(matches!(replay(&journal, inside), Err(Error::Corrupt { .. })));
    }
    assert_eq!(replay(&journal, journal.end()).unwrap(), []);
}

#[test]
fn a_checkpoint_is_refused_unless_it_covers_a_durable_boundary_and_moves_on() {
    let disk = SimDisk::default();
    let mut journal = open(&disk).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 100)]).unwrap();
    let durable = journal.sync().unwrap();
    let end = append(&mut journal, &[numbered(1, 2, 100)]).unwrap();
    let inside = Position { offset: durable.offset - 1, ..durable };
    for bad in [end, inside, Position { segment: 0, offset: 0 }, Position { segment: 2, offset: 32 }] {
        assert!(matches!(journal.checkpoint(bad, b"x", &[]), Err(Error::BadPosition { position }) if position == bad));
    }
    journal.checkpoint(durable, b"x", &[]).unwrap();
    assert!(matches!(journal.checkpoint(Position::START, b"x", &[]), Err(Error::BadPosition { .. })));
    journal.checkpoint(durable, b"y", &[]).unwrap();
    drop(journal);
    let checkpoint = open(&disk).unwrap().1.checkpoint.unwrap();
    assert_eq!((checkpoint.covers, checkpoint.state), (durable, b"y".to_vec()));
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let disk = SimDisk::default();
    drop(open(&disk).unwrap());
    for name in ["notes.txt", "segment-7.log", "checkpoint.tmp", &index_file(9)] {
        broker_log::Disk::create(&disk, name).unwrap();
    }
    drop(open(&disk).unwrap());
    assert_eq!(disk.names(), ["notes.txt", &segment_file(1), "segment-7.log"]);
}
