//! Zeros ahead of the end, and what may become of them.

use broker_log::{AHEAD_WRITE_BYTES_MAX, Config, Error, Journal, Position, Recovered, SEGMENT_BYTES_MIN, check};

use crate::sim::SimDisk;
use crate::support::{append, last_file, numbered, open, replay, replay_all, segment_file, small};

const AHEAD_BYTES: u64 = 1_000;
const MARK_BYTES: usize = 32;
/// A frame of [`numbered`] with a payload of 100 bytes.
const FRAME_BYTES: usize = 132;

fn ahead() -> Config {
    Config { ahead_bytes: AHEAD_BYTES, ..small() }
}

fn open_ahead(disk: &SimDisk) -> (Journal<SimDisk>, Recovered) {
    Journal::open(disk.clone(), ahead()).unwrap()
}

fn length(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// Three synced entries, the name of their file, and where they end in it.
fn history() -> (SimDisk, String, usize) {
    let disk = SimDisk::default();
    let mut journal = open_ahead(&disk).0;
    for number in 1..=3 {
        append(&mut journal, &[numbered(1, number, 100)]).unwrap();
        journal.sync().unwrap();
    }
    let (name, end) = (last_file(&journal), length(journal.end().offset));
    drop(journal);
    (disk, name, end)
}

#[test]
fn small_writes_go_into_zeros_and_do_not_make_the_file_longer() {
    let disk = SimDisk::default();
    let mut journal = open_ahead(&disk).0;
    let mut sizes = Vec::new();
    for number in 1..=9 {
        append(&mut journal, &[numbered(1, number, 100)]).unwrap();
        journal.sync().unwrap();
        let bytes = disk.bytes(&last_file(&journal));
        assert!(bytes[length(journal.end().offset) + MARK_BYTES..].iter().all(|byte| *byte == 0));
        assert_eq!(journal.bytes_on_disk(), bytes.len() as u64);
        sizes.push(bytes.len());
    }
    // The first write fills a thousand bytes ahead, and the ninth comes to their end.
    let first = length(Position::START.offset) + FRAME_BYTES + length(AHEAD_BYTES);
    assert_eq!(sizes, [[first; 8].as_slice(), &[first + 8 * FRAME_BYTES]].concat());
    assert_eq!(replay_all(&journal).unwrap().len(), 9);
}

#[test]
fn zeros_do_not_pass_the_size_of_a_segment_and_a_sealed_one_has_none() {
    let disk = SimDisk::default();
    let mut journal = Journal::open(disk.clone(), Config { ahead_bytes: u64::MAX, ..small() }).unwrap().0;
    append(&mut journal, &[numbered(1, 1, 100)]).unwrap();
    assert_eq!(disk.bytes(&segment_file(1)).len(), length(SEGMENT_BYTES_MIN) + MARK_BYTES);
    let mut number = 2;
    while journal.end().segment == 1 {
        append(&mut journal, &[numbered(1, number, 100)]).unwrap();
        journal.sync().unwrap();
        number += 1;
    }
    let sealed = journal.segments()[0].clone();
    assert!(sealed.sealed);
    assert_eq!(disk.bytes(&segment_file(1)).len(), length(sealed.bytes));
    let all = replay_all(&journal).unwrap();
    drop(journal);
    assert_eq!(replay_all(&open(&disk).unwrap().0).unwrap(), all);
}

#[test]
fn a_large_write_has_no_zeros_behind_it() {
    let disk = SimDisk::default();
    let config = Config { segment_bytes_max: 1 << 20, ..ahead() };
    let mut journal = Journal::open(disk.clone(), config).unwrap().0;
    let frame_bytes = |payload_bytes: u64| payload_bytes + 32;
    let largest = AHEAD_WRITE_BYTES_MAX - frame_bytes(0);
    append(&mut journal, &[numbered(1, 1, length(largest + 1))]).unwrap();
    let end = length(journal.end().offset);
    assert_eq!(disk.bytes(&segment_file(1)).len(), end);
    append(&mut journal, &[numbered(1, 2, length(largest))]).unwrap();
    let end = length(journal.end().offset);
    assert_eq!(disk.bytes(&segment_file(1)).len(), end + length(AHEAD_BYTES));
}

#[test]
fn an_open_takes_zeros_for_the_end_and_tells_of_no_torn_tail() {
    let (disk, name, end) = history();
    let with_mark = disk.bytes(&name).len();
    // Without its mark, as after a loss of power, and with it.
    for mark_bytes in [0, MARK_BYTES] {
        let disk = disk.copy();
        disk.alter(&name, |bytes| bytes[end + mark_bytes..].fill(0));
        assert_eq!(disk.bytes(&name).len(), with_mark);
        assert_eq!(check(&disk).unwrap().torn_bytes, 0);
        let (mut journal, recovered) = open_ahead(&disk);
        assert_eq!((recovered.cut, length(recovered.end.offset)), (None, end));
        assert_eq!(disk.bytes(&name).len(), end + MARK_BYTES, "the zeros are gone until something is written");
        append(&mut journal, &[numbered(1, 4, 100)]).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let (journal, recovered) = open_ahead(&disk);
        assert_eq!((replay_all(&journal).unwrap().len(), recovered.cut), (4, None));
    }
}

#[test]
fn a_write_that_is_torn_inside_the_zeros_is_cut_to_the_last_whole_frame() {
    let (disk, name, end) = history();
    let mut journal = open_ahead(&disk).0;
    append(&mut journal, &[numbered(1, 4, 100), numbered(1, 5, 100)]).unwrap();
    drop(journal);
    let whole = disk.bytes(&name);
    assert!(whole.len() > end + 2 * FRAME_BYTES);
    // What is torn is zero up to there, or from there on.
    for at in 0..=2 * FRAME_BYTES {
        for from_start in [false, true] {
            let disk = disk.copy();
            let torn = if from_start { end..end + at } else { end + at..end + 2 * FRAME_BYTES };
            disk.alter(&name, |bytes| bytes[torn.clone()].fill(0));
            let left = disk.bytes(&name);
            let kept = 3 + usize::from(left[end..][..FRAME_BYTES] == whole[end..][..FRAME_BYTES]);
            let kept = if left == whole { 5 } else { kept };
            let (mut journal, recovered) = open_ahead(&disk);
            assert_eq!(replay_all(&journal).unwrap().len(), kept, "{torn:?}");
            let found = end + (kept - 3) * FRAME_BYTES;
            let last = left.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            assert_eq!(recovered.cut.map_or(0, |cut| cut.bytes), last.saturating_sub(found) as u64, "{torn:?}");
            // Nothing of what was torn comes back behind what is written now.
            append(&mut journal, &[numbered(1, 6, 100)]).unwrap();
            journal.sync().unwrap();
            drop(journal);
            let (journal, recovered) = open_ahead(&disk);
            assert_eq!((replay_all(&journal).unwrap().len(), recovered.cut), (kept + 1, None), "{torn:?}");
        }
    }
}

#[test]
fn zeros_where_something_was_synced_are_corruption() {
    let (disk, name, end) = history();
    let whole = disk.bytes(&name);
    for from in length(Position::START.offset)..end {
        let disk = disk.copy();
        // The mark behind it says that it was synced.
        disk.alter(&name, |bytes| bytes[from..end].fill(0));
        let is_whole = disk.bytes(&name) == whole;
        assert_eq!(matches!(open(&disk), Err(Error::Corrupt { .. })), !is_whole, "zeros from {from}");
    }
}

#[test]
fn a_bit_that_is_flipped_in_the_zeros_costs_nothing() {
    let (disk, name, end) = history();
    let expected = replay_all(&open_ahead(&disk.copy()).0).unwrap();
    // The zeros behind it are recognised as such as long as there are enough for a frame's header.
    for byte in end + MARK_BYTES..disk.bytes(&name).len() - 32 {
        let disk = disk.copy();
        disk.alter(&name, |bytes| bytes[byte] ^= 1 << (byte % 8));
        let (journal, recovered) = open_ahead(&disk);
        assert_eq!(replay_all(&journal).unwrap(), expected);
        assert_eq!(recovered.cut.map(|cut| cut.bytes), Some((byte + 1 - end - MARK_BYTES) as u64));
    }
}

#[test]
fn a_journal_that_was_written_without_zeros_opens_with_them_and_the_other_way_round() {
    let disk = SimDisk::default();
    let mut entries = Vec::new();
    for (number, config) in (1..).zip([small(), ahead(), small(), ahead(), ahead(), small()]) {
        let (mut journal, recovered) = Journal::open(disk.clone(), config).unwrap();
        assert_eq!(recovered.cut, None);
        assert_eq!(replay_all(&journal).unwrap(), entries);
        for part in 0..9 {
            let entry = numbered(1, number * 10 + part, 90);
            append(&mut journal, std::slice::from_ref(&entry)).unwrap();
            journal.sync().unwrap();
            entries.push(entry);
        }
    }
    assert!(replay(&open_ahead(&disk).0, Position::START).unwrap().last().unwrap().0.segment > 1);
}

#[test]
fn power_lost_at_any_change_while_zeros_are_written_loses_nothing_that_was_synced() {
    for changes in 0..60 {
        for seed in 0..6 {
            let disk = SimDisk::default();
            let mut journal = open_ahead(&disk).0;
            disk.fail_after(changes);
            let mut synced = 0;
            for number in 0..40 {
                let entry = numbered(1, number, 90);
                if append(&mut journal, &[entry]).and_then(|_| journal.sync()).is_err() {
                    break;
                }
                synced = number + 1;
            }
            drop(journal);
            disk.lose_power(seed * 61 + changes);
            let all = replay_all(&open_ahead(&disk).0).unwrap();
            let expected: Vec<_> = (0..all.len() as u64).map(|number| numbered(1, number, 90)).collect();
            assert_eq!(all, expected);
            assert!(all.len() as u64 >= synced, "{} of {synced} are left", all.len());
        }
    }
}
