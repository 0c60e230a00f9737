//! Ack ids: a lease of this engine as opaque text.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use broker_core::{AckRef, LeaseId, Seq, SubscriptionId};
use bytes::BufMut;

use crate::engine::{AckId, Error};

/// Subscription, message number, epoch and number of the lease.
const FIELDS_BYTES: usize = 4 + 8 + 4 + 8;
/// The checksum in front of them tells an ack id from other text.
const SUM_BYTES: usize = 4;

/// The ack id of a lease.
pub(super) fn encode(lease: AckRef) -> AckId {
    let mut bytes = [0; SUM_BYTES + FIELDS_BYTES];
    let (sum, fields) = bytes.split_at_mut(SUM_BYTES);
    let mut rest = &mut *fields;
    rest.put_u32_le(lease.subscription.0);
    rest.put_u64_le(lease.seq.0);
    rest.put_u32_le(lease.lease.epoch);
    rest.put_u64_le(lease.lease.number);
    sum.copy_from_slice(&crc32fast::hash(fields).to_le_bytes());
    AckId(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// The lease of an ack id.
pub(super) fn decode(id: &AckId) -> Result<AckRef, Error> {
    fields(&id.0).ok_or_else(|| Error::AckId(id.0.chars().take(SHOWN_CHARS_MAX).collect()))
}

/// How much of a wrong ack id is shown in the error.
const SHOWN_CHARS_MAX: usize = 64;

fn fields(text: &str) -> Option<AckRef> {
    let mut bytes = [0; SUM_BYTES + FIELDS_BYTES];
    let count = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    let (sum, fields) = bytes.split_first_chunk::<SUM_BYTES>()?;
    if count != bytes.len() || u32::from_le_bytes(*sum) != crc32fast::hash(fields) {
        return None;
    }
    let (subscription, rest) = fields.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    Some(AckRef {
        subscription: SubscriptionId(u32::from_le_bytes(*subscription)),
        seq: Seq(u64::from_le_bytes(*seq)),
        lease: LeaseId { epoch: u32::from_le_bytes(*epoch), number: u64::from_le_bytes(*number) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: AckRef =
        AckRef { subscription: SubscriptionId(7), seq: Seq(1 << 40), lease: LeaseId { epoch: 3, number: u64::MAX } };

    #[test]
    fn an_ack_id_comes_back_as_the_lease_it_stands_for() {
        assert_eq!(decode(&encode(LEASE)).unwrap(), LEASE);
    }

    #[test]
    fn an_ack_id_with_any_character_changed_added_or_missing_is_refused() {
        let good = encode(LEASE).0;
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let text = String::from_utf8(bytes).unwrap();
            assert!(decode(&AckId(text.clone())).is_err(), "{text} passes");
            assert!(decode(&AckId(good[..at].to_owned())).is_err(), "{} passes", &good[..at]);
        }
        assert!(decode(&AckId(good.clone() + "A")).is_err());
        assert!(decode(&AckId(good + "AAAA")).is_err());
    }
}
