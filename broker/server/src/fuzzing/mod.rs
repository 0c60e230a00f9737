//! What fuzzers call: each function takes any bytes, and panics if what reads them does, or breaks a promise.
//!
//! The targets of `fuzz/` call these, and a test here runs each over its corpus and many mutations of it.

mod disk;
mod journal;
#[cfg(test)]
mod tests;

use crate::edge::fuzzing as edge;
use crate::engine::embedded::fuzzing as engine;

/// A function for fuzzers.
pub type Target = fn(&[u8]);

/// Every target by its name, which is the name of its folder in `fuzz/corpus` as well.
pub const TARGETS: [(&str, Target); 7] = [
    ("ack_id", ack_id),
    ("checkpoint", checkpoint),
    ("filter", filter),
    ("journal", journal::run),
    ("record", record),
    ("replay", replay),
    ("rest", rest),
];

/// Texts as ack ids.
pub fn ack_id(bytes: &[u8]) {
    engine::ack_id(bytes);
}

/// Bytes as a checkpoint of the broker's state.
pub fn checkpoint(bytes: &[u8]) {
    engine::checkpoint(bytes);
}

/// Texts as filters.
pub fn filter(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(filter) = broker_core::Filter::parse(text) else { return };
    let again = broker_core::Filter::parse(filter.as_str());
    assert_eq!(again.as_ref(), Ok(&filter), "a filter is read as what was written down of it");
    let values = ["", "en", "a\"b", "\u{20ac}"];
    let sees = |filter: &broker_core::Filter, value: Option<&'static str>| filter.matches(|_| value);
    for value in values.map(Some).into_iter().chain([None]) {
        let opposite = broker_core::Filter::parse(&format!("NOT ({text})"));
        // The longer text may be too long, or nested too deep.
        let is_opposite = opposite.is_ok_and(|opposite| sees(&opposite, value) == sees(&filter, value));
        assert!(!is_opposite, "a filter and its opposite agree on {value:?}");
    }
}

/// Bytes as the files of a data directory.
pub fn journal(bytes: &[u8]) {
    journal::run(bytes);
}

/// Bytes as a journal entry.
pub fn record(bytes: &[u8]) {
    engine::record(bytes);
}

/// Bytes as a sequence of journal entries, each behind its length in two bytes.
pub fn replay(bytes: &[u8]) {
    engine::replay(bytes);
}

/// Texts as requests of the REST face: method and path in the first line, the body behind it.
pub fn rest(bytes: &[u8]) {
    edge::rest(bytes);
}
