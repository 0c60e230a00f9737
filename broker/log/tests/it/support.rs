//! What the tests share.

use broker_log::{Config, Disk, Entry, Error, Found, Journal, Key, Position, Recovered, SEGMENT_BYTES_MIN, Verify};

use crate::sim::SimDisk;

/// An entry as it was appended or replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: Option<Key>,
    pub(crate) payload: Vec<u8>,
}

pub(crate) type Replayed = Vec<(Position, Stored)>;

/// Small segments without zeros ahead, so that a file ends where its last frame or mark does.
pub(crate) fn small() -> Config {
    Config { segment_bytes_max: SEGMENT_BYTES_MIN, verify: Verify::All, ahead_bytes: 0, ..Config::default() }
}

pub(crate) fn key(stream: u32, first: u64, count: u32) -> Option<Key> {
    Some(Key { stream, first, count })
}

/// A keyed entry whose payload tells its number, of the given size.
pub(crate) fn numbered(stream: u32, number: u64, bytes: usize) -> Stored {
    let mut payload = number.to_le_bytes().repeat(bytes.div_ceil(8));
    payload.truncate(bytes);
    Stored { key: key(stream, number, 1), payload }
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Journal<SimDisk>, Recovered), Error> {
    Journal::open(disk.clone(), small())
}

/// Appends as one batch, each payload in two pieces.
pub(crate) fn append<D: Disk>(journal: &mut Journal<D>, entries: &[Stored]) -> Result<Position, Error> {
    let pieces: Vec<_> = entries.iter().map(|entry| entry.payload.split_at(entry.payload.len() / 3)).collect();
    let pieces: Vec<_> = pieces.iter().map(|(one, two)| [*one, *two]).collect();
    let entries: Vec<_> =
        entries.iter().zip(&pieces).map(|(entry, pieces)| Entry { key: entry.key, payload: &pieces[..] }).collect();
    journal.append(&entries)
}

pub(crate) fn replay<D: Disk>(journal: &Journal<D>, from: Position) -> Result<Replayed, Error> {
    let mut all = Vec::new();
    journal.replay(from, |position, key, payload| -> Result<(), Error> {
        all.push((position, Stored { key, payload: payload.to_vec() }));
        Ok(())
    })?;
    Ok(all)
}

pub(crate) fn replay_all<D: Disk>(journal: &Journal<D>) -> Result<Vec<Stored>, Error> {
    Ok(replay(journal, Position::START)?.into_iter().map(|(_, stored)| stored).collect())
}

/// What a scan has to answer, by the long way: the last copy of each number, in order.
pub(crate) fn latest(all: &Replayed, stream: u32, from: u64) -> Vec<(Position, Stored)> {
    let mut by_number = std::collections::BTreeMap::new();
    for (position, stored) in all {
        if let Some(key) = stored.key.filter(|key| key.stream == stream && key.last() >= from) {
            by_number.insert(key.first, (*position, stored.clone()));
        }
    }
    by_number.into_values().collect()
}

pub(crate) fn as_replayed(found: Vec<Found>) -> Replayed {
    found
        .into_iter()
        .map(|found| (found.position, Stored { key: Some(found.key), payload: found.payload.to_vec() }))
        .collect()
}

/// The last segment's file name.
pub(crate) fn last_file<D: Disk>(journal: &Journal<D>) -> String {
    segment_file(journal.end().segment)
}

pub(crate) fn segment_file(id: u64) -> String {
    format!("segment-{id:020}.log")
}

pub(crate) fn index_file(id: u64) -> String {
    format!("segment-{id:020}.idx")
}

pub(crate) fn checkpoint_file(number: u64) -> String {
    format!("checkpoint-{number:020}.ckp")
}
