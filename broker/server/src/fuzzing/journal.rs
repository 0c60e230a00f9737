//! Any bytes as the files of a journal: it opens or says what is wrong, and one that opens goes on to work.
//!
//! The bytes are files, one behind the other: a byte that tells the kind, a byte with its number, two bytes with its
//! length, the content. Checksums can't be guessed, so that they are put right where the kind asks for it.

use broker_log::{Config, Entry, Error, Journal, Key, Position, SEGMENT_BYTES_MIN, Verify};
use crc32fast::Hasher;

use super::disk::MemoryDisk;

const HEADER_LEN: usize = 32;
/// The kind's bit that leaves the checksums as they are.
const AS_IT_IS: u8 = 4;
/// The streams that are looked through.
const STREAMS: u32 = 4;

type Entries = Vec<(Position, Option<Key>, Vec<u8>)>;

pub(super) fn run(bytes: &[u8]) {
    let disk = MemoryDisk::default();
    files(bytes, &disk);
    let config = Config { segment_bytes_max: SEGMENT_BYTES_MIN, verify: Verify::All, ..Default::default() };
    let Ok((mut journal, recovered)) = Journal::open(disk.clone(), config.clone()) else { return };
    let from = recovered.replay_from();
    let Ok(before) = replay(&journal, from) else { return };
    for stream in 0..STREAMS {
        // Streams whose numbers stand there twice are refused by nobody, and answered somehow.
        journal.reader().scan(stream, 0, 100, 1 << 20).ok();
        journal.reader().lookup(stream, 1).ok();
    }
    let key = Some(Key { stream: STREAMS, first: 1, count: 1 });
    let payload: [&[u8]; 1] = [b"after all that"];
    let written = journal.append(&[Entry { key, payload: &payload }]).and_then(|at| journal.sync().map(|_| at));
    // A journal may have run out of numbers for its segments.
    let Ok(at) = written else { return };
    drop(journal);

    let opened = Journal::open(disk, config);
    let (journal, recovered) = opened.unwrap_or_else(|error| panic!("what was repaired and written to: {error}"));
    assert_eq!(recovered.cut, None, "what is whole has a torn tail");
    let after = replay(&journal, from).unwrap_or_else(|error| panic!("what was replayed before: {error}"));
    let (last, all_before) = after.split_last().unwrap_or_else(|| panic!("what was written is gone"));
    assert_eq!(all_before, before);
    assert_eq!((last.1, last.2.as_slice()), (key, payload[0]), "{at} came back as something else");
}

fn replay(journal: &Journal<MemoryDisk>, from: Position) -> Result<Entries, Error> {
    let mut all = Vec::new();
    journal.replay(from, |position, key, payload| {
        all.push((position, key, payload.to_vec()));
        Ok::<_, Error>(())
    })?;
    Ok(all)
}

fn files(mut bytes: &[u8], disk: &MemoryDisk) {
    while let Some(([kind, number, low, high], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        let mut content = content.to_vec();
        let name = match kind % AS_IT_IS {
            0 | 1 => format!("segment-{number:020}.log"),
            2 => format!("segment-{number:020}.idx"),
            _ => format!("checkpoint-{number:020}.ckp"),
        };
        if kind & AS_IT_IS == 0 {
            match kind % AS_IT_IS {
                0 | 1 => mend_segment(&mut content, *number),
                2 => {}
                _ => mend_checkpoint(&mut content, *number),
            }
        }
        disk.put(&name, content);
        bytes = rest;
    }
}

/// Makes a sound header, and puts the checksums of the frames right as far as their lengths lead from one to the next.
fn mend_segment(bytes: &mut [u8], id: u8) {
    let Some((header, _)) = bytes.split_first_chunk_mut::<HEADER_LEN>() else { return };
    header[..8].copy_from_slice(b"OFSG\x01\0\0\0");
    header[12..20].copy_from_slice(&u64::from(id).to_le_bytes());
    let crc = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    let seed = checksum(0, &[&header[12..20], &header[20..28]]);
    let mut offset = HEADER_LEN;
    while let Some((head, rest)) = bytes[offset..].split_first_chunk_mut::<HEADER_LEN>() {
        let payload_bytes = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        if let Some(payload) = rest.get(..payload_bytes) {
            head[4..8].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        }
        let crc = checksum(seed, &[&(offset as u64).to_le_bytes(), &head[4..]]);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        if payload_bytes > rest.len() {
            return;
        }
        offset += HEADER_LEN + payload_bytes;
    }
}

fn mend_checkpoint(bytes: &mut [u8], number: u8) {
    let Some((header, state)) = bytes.split_first_chunk_mut::<56>() else { return };
    header[4..8].copy_from_slice(b"OFCP");
    header[12..20].copy_from_slice(&u64::from(number).to_le_bytes());
    // The second version lists segments in front of the state, 16 bytes for each run of them.
    let runs = u32::from_le_bytes([header[52], header[53], header[54], header[55]]);
    let listed_bytes = if header[8] == 2 { u64::from(runs) * 16 } else { 0 };
    header[44..52].copy_from_slice(&(state.len() as u64).saturating_sub(listed_bytes).to_le_bytes());
    let crc = checksum(0, &[&header[4..], state]);
    header[..4].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(initial: u32, pieces: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new_with_initial(initial);
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize()
}
