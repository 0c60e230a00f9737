//! What is checked where it is made: names and settings.

use std::collections::BTreeMap;

use broker_core::*;

#[test]
fn names_follow_the_rules_of_pubsub() {
    let parse = |name: &str| name.parse::<TopicName>();
    let id = |id: &str| parse(&format!("projects/p/topics/{id}"));
    for good in ["abc", "A~b+c%d_e.f-0", "Goog", "agoog", &"a".repeat(ID_CHARS_MAX)] {
        let name = id(good).unwrap();
        assert_eq!((name.project(), name.id()), ("p", good));
        assert_eq!(name.to_string(), format!("projects/p/topics/{good}"));
    }
    assert!(matches!(id("ab"), Err(NameError::Length { .. })));
    assert!(matches!(id(""), Err(NameError::Length { .. })));
    assert!(matches!(id(&"a".repeat(ID_CHARS_MAX + 1)), Err(NameError::Length { .. })));
    assert!(matches!(id("1abc"), Err(NameError::Start { .. })));
    assert!(matches!(id("-abc"), Err(NameError::Start { .. })));
    assert!(matches!(id("goog-abc"), Err(NameError::Reserved { .. })));
    assert!(matches!(id("a b c"), Err(NameError::Character { .. })));
    assert!(matches!(id("größe"), Err(NameError::Character { .. })));
    for bad in
        ["", "abc", "projects/p/topics", "projects/p/topics/abc/d", "projects/p/subscriptions/abc", DELETED_TOPIC]
    {
        assert!(matches!(parse(bad), Err(NameError::Form { .. })), "{bad}");
    }
    for (project, good) in [("x", true), ("my-project_1.a:b", true), ("", false), ("a b", false), ("é", false)] {
        let parsed = parse(&format!("projects/{project}/topics/abc"));
        assert_eq!(parsed.is_ok(), good, "{project}");
        assert_eq!(format!("projects/{project}").parse::<ProjectName>().is_ok(), good, "{project}");
    }
    assert!("projects/p/x".parse::<ProjectName>().is_err());
    assert!("projects/p/subscriptions/a.b".parse::<SubscriptionName>().is_ok());
    assert!("projects/p/topics/abc".parse::<SubscriptionName>().is_err());
}

#[test]
fn settings_are_taken_up_to_their_limits_and_not_beyond() {
    let name: TopicName = "projects/p/topics/dead".parse().unwrap();
    for (ms, good) in [(9_999, false), (10_000, true), (600_000, true), (600_001, false)] {
        assert_eq!(AckDeadline::from_ms(ms).is_ok(), good, "{ms}");
    }
    for (min, max, good) in
        [(0, 0, true), (0, 600_000, true), (600_000, 600_000, true), (2, 1, false), (0, 600_001, false)]
    {
        assert_eq!(RetryPolicy::new(min, max).is_ok(), good, "{min} to {max}");
    }
    for (attempts, good) in [(4, false), (5, true), (100, true), (101, false)] {
        assert_eq!(DeadLetterPolicy::new(name.clone(), attempts).is_ok(), good, "{attempts}");
    }
}

#[test]
fn labels_are_taken_up_to_their_limits_and_not_beyond() {
    let label = |key: usize, value: usize| Labels::new(BTreeMap::from([("k".repeat(key), "v".repeat(value))]));
    assert!(label(1, 0).is_ok());
    assert!(label(LABEL_CHARS_MAX, LABEL_CHARS_MAX).is_ok());
    assert!(label(0, 1).is_err());
    assert!(label(LABEL_CHARS_MAX + 1, 1).is_err());
    assert!(label(1, LABEL_CHARS_MAX + 1).is_err());
    let count = |count: usize| Labels::new((0..count).map(|n| (format!("k{n}"), String::new())).collect());
    assert!(count(LABELS_MAX).is_ok());
    assert!(count(LABELS_MAX + 1).is_err());
}

#[test]
fn times_to_keep_and_to_expire_have_their_ranges() {
    for (ms, fits) in [
        (RETENTION_MS_MIN - 1, false),
        (RETENTION_MS_MIN, true),
        (RETENTION_MS_MAX, true),
        (RETENTION_MS_MAX + 1, false),
    ] {
        match Retention::from_ms(ms) {
            Ok(retention) => assert!(fits && retention.ms() == ms),
            Err(error) => {
                assert!(!fits && matches!(error, Error::InvalidArgument { field: "message_retention_duration", .. }));
            }
        }
    }
    for (ms, fits) in [(EXPIRATION_MS_MIN - 1, false), (EXPIRATION_MS_MIN, true), (u64::MAX, true)] {
        match Expiration::from_ms(ms) {
            Ok(expiration) => assert!(fits && expiration.ms() == ms),
            Err(error) => {
                assert!(!fits && matches!(error, Error::InvalidArgument { field: "expiration_policy.ttl", .. }));
            }
        }
    }
    let config = SubscriptionConfig::new(
        "projects/p/subscriptions/payment".parse().unwrap(),
        "projects/p/topics/orders".parse().unwrap(),
    );
    assert_eq!(config.retention.ms(), 7 * 24 * 3_600_000);
    assert_eq!(config.expiration.map(Expiration::ms), Some(31 * 24 * 3_600_000));
    assert_eq!("projects/p/snapshots/monday".parse::<SnapshotName>().unwrap().id(), "monday");
    assert!("projects/p/topics/monday".parse::<SnapshotName>().is_err());
}
