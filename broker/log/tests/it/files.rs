//! The journal on a real directory.

use std::fs;
use std::path::Path;

use broker_log::{Config, Error, Journal, OsDisk, Position, Recovered};

use crate::support::{append, numbered, replay, replay_all, segment_file, small};

fn open(dir: &Path) -> Result<(Journal, Recovered), Error> {
    Journal::open(OsDisk::new(dir).unwrap(), small())
}

#[test]
fn what_is_written_is_read_again_after_an_open() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data").join("journal");
    let mut journal = open(&dir).unwrap().0;
    let entries: Vec<_> = (0..100).map(|number| numbered(1, number, 333)).collect();
    for batch in entries.chunks(7) {
        append(&mut journal, batch).unwrap();
        journal.sync().unwrap();
    }
    let covers = journal.durable();
    journal.checkpoint(covers, b"state", &[1]).unwrap();
    drop(journal);

    let (mut journal, recovered) = open(&dir).unwrap();
    assert_eq!(recovered.checkpoint.as_ref().unwrap().state, b"state");
    assert_eq!(replay(&journal, recovered.replay_from()).unwrap(), []);
    assert_eq!(replay_all(&journal).unwrap(), entries);
    let found = journal.reader().scan(1, 90, usize::MAX, u64::MAX).unwrap();
    assert_eq!(found.len(), 10);
    assert_eq!(found[0].payload, entries[90].payload);
    let first = journal.segments()[0].id;
    journal.remove_segment(first).unwrap();
    assert!(!dir.join(segment_file(first)).exists());
}

#[test]
fn a_second_journal_in_the_same_directory_is_locked_out_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.to_string(), "the journal is locked by another process");
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_journal_cut_at_any_byte_of_its_last_frames_keeps_the_whole_frames_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path()).unwrap().0;
    let mut ends = vec![(Position::START, 0)];
    let entries: Vec<_> = (0..12).map(|number| numbered(1, number, usize::try_from(number).unwrap())).collect();
    for (at, batch) in (1..).zip(entries.chunks(1)) {
        ends.push((append(&mut journal, batch).unwrap(), at));
        // The last three are torn by a crash before their sync.
        if at <= 9 {
            journal.sync().unwrap();
        }
    }
    let path = dir.path().join(segment_file(1));
    drop(journal);
    let whole = fs::read(&path).unwrap();
    let synced = usize::try_from(ends[9].0.offset).unwrap();
    assert_eq!(whole.len() as u64, ends[12].0.offset);

    for cut in synced..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (mut journal, recovered) = open(dir.path()).unwrap();
        let (end, kept) = *ends.iter().rfind(|(end, _)| end.offset <= cut as u64).unwrap();
        assert_eq!(replay_all(&journal).unwrap(), entries[..kept], "cut at {cut}");
        assert_eq!(recovered.end, end);
        let torn = cut as u64 - end.offset;
        assert_eq!(recovered.cut.map_or(0, |cut| cut.bytes), torn);

        // It goes on from there, and nothing of the torn frame comes back.
        append(&mut journal, &entries[kept..]).unwrap();
        journal.sync().unwrap();
        drop(journal);
        let (journal, recovered) = open(dir.path()).unwrap();
        assert_eq!((replay_all(&journal).unwrap(), recovered.cut), (entries.clone(), None));
    }
}

#[test]
fn a_directory_that_cannot_be_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(OsDisk::new(file.path().join("journal")).is_err());
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes_max: 1, ..Config::default() };
    let error = Journal::open(OsDisk::new(dir.path()).unwrap(), config).unwrap_err();
    assert!(matches!(error, Error::SegmentBytes { segment_bytes_max: 1 }));
}
