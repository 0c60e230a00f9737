//! The readers of the engine, for fuzzers.

use broker_core::{AckRef, Limits, Output, Recovery, Snapshot, Time};
use bytes::Bytes;

use super::codec::{
    Bodies, decode_checkpoint, decode_messages, decode_record, encode_checkpoint, encode_record, key_of, message_of,
};
use super::{AckId, ack_id};

/// An ack id that passes is the one that stands for its lease.
pub(crate) fn ack_id(bytes: &[u8]) {
    let id = AckId(String::from_utf8_lossy(bytes).into_owned());
    if let Ok(lease) = ack_id::decode(&id) {
        assert_eq!(ack_id::encode(lease), id);
    }
    // Every lease has an id of its own.
    if let Some((fields, _)) = bytes.split_first_chunk::<24>() {
        let number =
            |range: std::ops::Range<usize>| fields[range].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let small = |range| u32::try_from(number(range)).unwrap_or(u32::MAX);
        let lease = broker_core::LeaseId { epoch: small(4..8), number: number(8..16) };
        let reference = AckRef {
            subscription: broker_core::SubscriptionId(small(0..4)),
            seq: broker_core::Seq(number(16..24)),
            lease,
        };
        assert_eq!(ack_id::decode(&ack_id::encode(reference)).ok(), Some(reference));
    }
}

/// A record that is read is written and read again as the same.
pub(crate) fn record(bytes: &[u8]) {
    let stored = decode_messages(&Bytes::copy_from_slice(bytes));
    let bodies = stored.map(|stored| stored.bodies).unwrap_or_default();
    for body in &bodies {
        let key = key_of(body);
        if let Ok(message) = message_of(body.clone()) {
            assert_eq!(key.ok(), Some(super::codec::hash_of(&message.ordering_key)));
        }
    }
    let Ok(Some(record)) = decode_record(bytes) else { return };
    let mut written = Vec::new();
    encode_record(&record, Bodies::from(&bodies[..]), |_, payload| written.push(payload.to_vec()));
    if let [only] = &written[..] {
        assert_eq!(decode_record(only).ok().flatten(), Some(record));
    }
}

/// Whatever records a recovery takes, a broker starts from them, and its checkpoint restores the same.
pub(crate) fn replay(bytes: &[u8]) {
    let mut recovery = Recovery::new();
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (payload, behind) = behind.split_at(length);
        rest = behind;
        match decode_record(payload) {
            Ok(Some(record)) if recovery.apply(&record).is_err() => return,
            _ => {}
        }
    }
    let snapshot = recovery.snapshot();
    assert_eq!(decode_checkpoint(&encode_checkpoint(&snapshot)).as_ref(), Ok(&snapshot));
    let restored = Recovery::restore(snapshot.clone()).map(|recovery| recovery.snapshot());
    assert_eq!(restored.as_ref(), Ok(&snapshot));
    start(snapshot);
}

/// Whatever checkpoint is taken, a broker starts from it.
pub(crate) fn checkpoint(bytes: &[u8]) {
    let Ok(snapshot) = decode_checkpoint(bytes) else { return };
    assert_eq!(decode_checkpoint(&encode_checkpoint(&snapshot)).as_ref(), Ok(&snapshot));
    start(snapshot);
}

fn start(snapshot: Snapshot) {
    let Ok(recovery) = Recovery::restore(snapshot) else { return };
    let epochs_left = recovery.snapshot().epoch < u32::MAX;
    if epochs_left {
        let mut out = Output::new();
        let broker = recovery.begin(Limits::default(), 1, Time(1), &mut out);
        broker.poll_timeout();
        broker.snapshot();
    }
}
