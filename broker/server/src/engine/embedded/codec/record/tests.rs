use broker_core as core;

use super::super::bodies::{CHUNK_BYTES, body_of};
use super::*;

fn entries(record: &Record, bodies: &[Bytes]) -> Vec<(Option<Key>, Vec<u8>)> {
    let mut entries = Vec::new();
    encode_record(record, bodies.into(), |key, payload| entries.push((key, payload.to_vec())));
    entries
}

fn full_subscription() -> core::SubscriptionConfig {
    let topic: core::TopicName = "projects/p/topics/orders".parse().unwrap();
    core::SubscriptionConfig {
        ack_deadline: core::AckDeadline::from_ms(600_000).unwrap(),
        labels: core::Labels::new([("k".to_owned(), "v".to_owned())].into()).unwrap(),
        ordering: true,
        retry: Some(core::RetryPolicy::new(0, 1).unwrap()),
        dead_letter: Some(core::DeadLetterPolicy::new(topic.clone(), 100).unwrap()),
        filter: Some("attributes:a AND NOT attributes.\"b c\" = \"d\"".parse().unwrap()),
        retain_acked: true,
        retention: core::Retention::from_ms(core::RETENTION_MS_MAX).unwrap(),
        exactly_once: true,
        expiration: Some(core::Expiration::from_ms(core::EXPIRATION_MS_MIN + 1).unwrap()),
        push: Some(pushed(Some(core::PushVersion::V1), Some(core::PushBody::Raw { write_metadata: true }))),
        ..core::SubscriptionConfig::new("projects/p/subscriptions/payment".parse().unwrap(), topic)
    }
}

fn pushed(version: Option<core::PushVersion>, body: Option<core::PushBody>) -> core::PushConfig {
    core::PushConfig::new("https://example.com/push?a=b".to_owned(), version, body).unwrap()
}

fn records_without_messages() -> Vec<Record> {
    let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
    let topic = core::TopicConfig {
        name: "projects/p/topics/orders".parse().unwrap(),
        labels: core::Labels::new([("k".to_owned(), String::new())].into()).unwrap(),
        retention: Some(core::Retention::from_ms(core::RETENTION_MS_MIN).unwrap()),
    };
    let name: core::SnapshotName = "projects/p/snapshots/monday".parse().unwrap();
    let never = core::SubscriptionConfig { expiration: None, filter: None, ..full_subscription() };
    let pushed = |version, body| {
        let config = core::SubscriptionConfig { push: Some(pushed(version, body)), ..never.clone() };
        Record::SubscriptionUpdated { id: SubscriptionId(1), config }
    };
    let policy = |resource| {
        let policy = core::Policy { revision: u64::MAX, body: vec![1, 2, 3] };
        Record::PolicySet { resource, policy }
    };
    let labels = || core::Labels::new([("k".to_owned(), "v".to_owned())].into()).unwrap();
    let leases = LeaseId { epoch: u32::MAX, number: u64::MAX };
    let (id, topic_id, seq) = (SubscriptionId(u32::MAX), TopicId(1), Seq(u64::MAX));
    let failed = |reason| {
        let (attempts, not_before) = (7, Time(u64::MAX));
        Record::Failed { subscription: id, seq, attempts, not_before, reason }
    };
    vec![
        Record::Started { epoch: 0 },
        Record::TopicCreated { id: topic_id, config: core::TopicConfig::new(topic.name.clone()) },
        Record::TopicCreated { id: topic_id, config: topic.clone() },
        Record::TopicUpdated { id: topic_id, config: topic },
        Record::TopicDeleted { id: topic_id },
        Record::SubscriptionCreated {
            id,
            topic: topic_id,
            config: full_subscription(),
            start: seq,
            time: Time(u64::MAX),
        },
        pushed(None, None),
        pushed(Some(core::PushVersion::V1Beta2), Some(core::PushBody::Wrapped)),
        pushed(Some(core::PushVersion::V1Beta1), Some(core::PushBody::Raw { write_metadata: false })),
        policy(core::Resource::Topic(topic_id)),
        policy(core::Resource::Subscription(id)),
        policy(core::Resource::Snapshot(name.clone())),
        Record::SubscriptionCreated { id, topic: topic_id, config: never.clone(), start: seq, time: Time(0) },
        Record::SubscriptionUpdated { id, config: full_subscription() },
        Record::SubscriptionDetached { id },
        Record::Active { id, time: Time(1) },
        Record::Sought { id, to: SeekTo::After(seq), leases },
        Record::Sought { id, to: SeekTo::Snapshot(name.clone()), leases: LeaseId::default() },
        Record::SubscriptionCut { id, before: seq },
        Record::TopicCut { id: topic_id, before: seq },
        Record::SnapshotCreated { name: name.clone(), subscription: id, labels: labels(), expires: Time(u64::MAX) },
        Record::SnapshotUpdated { name: name.clone(), labels: labels(), expires: Time(2) },
        Record::SnapshotDeleted { name },
        Record::SubscriptionDeleted { id },
        Record::Acked {
            subscription: id,
            ranges: vec![range(1, 1), range(2, 9), range(1 << 40, u64::MAX)],
            bytes: Some(u64::MAX),
        },
        Record::Acked { subscription: id, ranges: vec![range(3, 3)], bytes: None },
        failed(FailReason::Nacked),
        failed(FailReason::Expired),
        failed(FailReason::Lost),
    ]
}

#[test]
fn every_record_comes_back_as_it_was() {
    for record in records_without_messages() {
        let entries = entries(&record, &[]);
        let [(None, payload)] = &entries[..] else { panic!("{record:?} has a key or several entries") };
        assert_eq!(decode_record(payload).unwrap().as_ref(), Some(&record));
    }
}

#[test]
fn published_messages_come_back_in_chunks_that_follow_each_other() {
    let bodies: Vec<Bytes> = [10, CHUNK_BYTES - 10, 1, 3 * CHUNK_BYTES, 5].map(|bytes| vec![1; bytes].into()).into();
    let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
    let of = |ranges: &[SeqRange], bytes: usize| {
        let (ranges, bytes) = (ranges.to_vec(), bytes as u64);
        if ranges.is_empty() { Vec::new() } else { vec![Filtered { subscription: SubscriptionId(7), ranges, bytes }] }
    };
    let filtered = of(&[range(11, 11), range(13, 14)], 10 + 1 + 3 * CHUNK_BYTES);
    let (topic, bytes) = (TopicId(3), 4 * CHUNK_BYTES as u64 + 6);
    let record = Record::Published { topic, first: Seq(11), count: 5, time: Time(99), bytes, filtered };
    let (mut next, mut all) = (11, Vec::new());
    // The chunks are 11 to 12, 13 to 14, and 15.
    let mut chunks = [of(&[range(11, 11)], 10), of(&[range(13, 14)], 1 + 3 * CHUNK_BYTES), of(&[], 0)].into_iter();
    for (key, payload) in entries(&record, &bodies) {
        let stored = decode_messages(&payload.clone().into()).unwrap();
        let count = u32::try_from(stored.bodies.len()).unwrap();
        assert_eq!(key, Some(Key { stream: 3, first: next, count }));
        let (topic, first, time) = (TopicId(3), Seq(next), Time(99));
        let filtered = chunks.next().unwrap();
        let bytes = size(&stored.bodies);
        let published = Record::Published { topic, first, count, time, bytes, filtered };
        assert_eq!(decode_record(&payload).unwrap(), Some(published));
        assert_eq!((stored.first, stored.time), (next, time));
        next += u64::from(count);
        all.extend(stored.bodies);
    }
    assert_eq!(all, bodies);
}

#[test]
fn a_publication_that_is_written_by_hand_is_what_the_declaration_says() {
    let bodies = [Bytes::from_static(b"one"), Bytes::new(), vec![7; 300].into()];
    let (subscription, ranges) = (SubscriptionId(9), vec![SeqRange { first: Seq(11), last: Seq(12) }]);
    let filtered = vec![Filtered { subscription, ranges, bytes: 3 }];
    let record =
        Record::Published { topic: TopicId(3), first: Seq(11), count: 3, time: Time(99), bytes: 303, filtered };
    let Record::Published { filtered, .. } = &record else { panic!() };
    let messages =
        Messages { first: 11, time_ms: 99, bodies: bodies.to_vec(), filtered: filtered_to(filtered, 11, bodies.len()) };
    let derived = versioned(&Entry { fact: Some(Fact::Published(Published { topic: 3, messages: Some(messages) })) });
    let [(_, payload)] = &entries(&record, &bodies)[..] else { panic!("it is one entry") };
    assert_eq!(*payload, derived);
}

#[test]
fn a_forwarded_message_is_found_in_the_topic_it_went_to() {
    let record = Record::Forwarded {
        subscription: SubscriptionId(1),
        seq: Seq(2),
        to: TopicId(3),
        as_seq: Seq(4),
        time: Time(5),
        bytes: 4,
        source_bytes: Some(3),
        filtered: vec![Filtered { subscription: SubscriptionId(9), ranges: vec![Seq(4).into()], bytes: 4 }],
    };
    let entries = entries(&record, &[Bytes::from_static(b"body")]);
    let [(Some(key), payload)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(*key, Key { stream: 3, first: 4, count: 1 });
    assert_eq!(decode_record(payload).unwrap(), Some(record));
    let stored = decode_messages(&payload.clone().into()).unwrap();
    assert_eq!(stored, Stored { first: 4, time: Time(5), bodies: vec![Bytes::from_static(b"body")] });
}

#[test]
fn a_redriven_message_is_found_in_the_topic_it_went_to() {
    let record = Record::Redriven {
        subscription: SubscriptionId(1),
        seq: Seq(2),
        source_bytes: 90,
        target: SubscriptionId(6),
        to: TopicId(3),
        as_seq: Seq(4),
        time: Time(5),
        bytes: 4,
    };
    let entries = entries(&record, &[Bytes::from_static(b"body")]);
    let [(Some(key), payload)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(*key, Key { stream: 3, first: 4, count: 1 });
    assert_eq!(decode_record(payload).unwrap(), Some(record));
    let stored = decode_messages(&payload.clone().into()).unwrap();
    assert_eq!(stored, Stored { first: 4, time: Time(5), bodies: vec![Bytes::from_static(b"body")] });
    for cut in 0..payload.len() {
        decode_record(&payload[..cut]).ok();
    }
}

#[test]
fn records_of_a_version_that_knew_no_sizes_are_read() {
    // A message acked, and one forwarded, as they were written then.
    let acked = [1, 58, 6, 8, 9, 18, 2, 4, 0];
    let ranges = vec![Seq(4).into()];
    let expected = Record::Acked { subscription: SubscriptionId(9), ranges, bytes: None };
    assert_eq!(decode_record(&acked), Ok(Some(expected)));
    let forwarded = [1, 74, 15, 8, 1, 16, 2, 24, 3, 34, 7, 8, 4, 16, 5, 26, 1, b'x'];
    let Ok(Some(Record::Forwarded { bytes, source_bytes, .. })) = decode_record(&forwarded) else { panic!() };
    assert_eq!((bytes, source_bytes), (1, None));
}

#[test]
fn a_carried_message_is_read_and_is_no_record() {
    let stored = Stored { first: 4, time: Time(5), bodies: vec![Bytes::from_static(b"body")] };
    let (key, payload) = encode_carried(TopicId(3), stored.clone());
    let payload = payload.to_vec();
    assert_eq!(key, Key { stream: 3, first: 4, count: 1 });
    assert_eq!(decode_record(&payload).unwrap(), None);
    assert_eq!(decode_messages(&payload.into()).unwrap(), stored);
}

#[test]
fn bytes_that_are_not_ours_are_refused_and_never_panic() {
    assert_eq!(decode_record(&[]), Err(CodecError::Empty));
    assert_eq!(decode_record(&[2]), Err(CodecError::Version(2)));
    assert_eq!(decode_record(&[1]), Err(CodecError::Field("fact")));
    for record in records_without_messages() {
        let (_, payload) = entries(&record, &[]).remove(0);
        for cut in 0..payload.len() {
            assert_ne!(decode_record(&payload[..cut]), Ok(Some(record.clone())), "cut at {cut}");
        }
        for at in 0..payload.len() {
            let mut flipped = payload.clone();
            flipped[at] ^= 0x81;
            decode_record(&flipped).ok();
            decode_messages(&flipped.into()).ok();
        }
        assert!(decode_messages(&payload.into()).is_err());
    }
}

#[test]
fn a_publication_without_a_message_or_with_numbers_that_cannot_be_is_refused() {
    let messages = |first, count| {
        let bodies = vec![Bytes::from_static(b"body"); count];
        Some(Messages { first, bodies, ..Default::default() })
    };
    let published = |messages| Fact::Published(Published { topic: 1, messages });
    let forwarded = |messages| Fact::Forwarded(Forwarded { messages, ..Default::default() });
    let redriven = |messages| Fact::Redriven(Redriven { messages, ..Default::default() });
    let decode = |fact| decode_record(&versioned(&Entry { fact: Some(fact) }));
    let refused = Err(CodecError::Field("messages"));
    for (first, count) in [(1, 0), (0, 1), (u64::MAX, 1)] {
        for fact in [published(messages(first, count)), forwarded(messages(first, count))] {
            assert_eq!(decode(fact), refused, "{count} from {first}");
        }
        assert_eq!(decode(redriven(messages(first, count))), refused, "{count} from {first}");
    }
    assert_eq!(decode(forwarded(messages(1, 2))), refused);
    assert_eq!(decode(redriven(messages(1, 2))), refused);
    assert!(decode(published(messages(u64::MAX - 1, 1))).is_ok());
}

#[test]
fn the_ordering_key_is_found_without_the_rest_of_the_message() {
    let message = |key: &str| Message { ordering_key: key.to_owned(), data: vec![1; 99].into(), ..Default::default() };
    assert_eq!(key_of(&body_of(message("")).0).unwrap(), None);
    assert_eq!(key_of(&body_of(message("k")).0).unwrap(), hash_of("k"));
    assert_ne!(hash_of("k"), hash_of("l"));
}
