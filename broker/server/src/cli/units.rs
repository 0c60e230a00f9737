//! Durations, sizes, labels and times as people read and write them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// The units of a span of time, in milliseconds, with the largest first.
const SPAN_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration like `10s`, `1h 30m` or `7d`.
pub(super) fn duration(text: &str) -> Result<prost_types::Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like `10s` or `7d`"))?;
    prost_types::Duration::try_from(duration).map_err(|_| "it is too long".to_owned())
}

/// A duration in whole seconds.
pub(super) fn whole_seconds(text: &str) -> Result<i32, String> {
    let duration = duration(text)?;
    match i32::try_from(duration.seconds) {
        Ok(seconds) if duration.nanos == 0 => Ok(seconds),
        Ok(_) => Err("it must be whole seconds".to_owned()),
        Err(_) => Err("it is too long".to_owned()),
    }
}

/// A point in time: like `2026-01-31T12:00:00Z`, or how long ago it was, like `10m`.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let time = SystemTime::now().checked_sub(ago).ok_or_else(|| "it is too long ago".to_owned())?;
        return Ok(Timestamp::from(time));
    }
    text.parse().map_err(|_| "write it like `2026-01-31T12:00:00Z`, or like `10m` for ten minutes ago".to_owned())
}

/// `KEY=VALUE`, of a label or an attribute.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "write it like `key=value`".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A span of time as people say it, exact to the millisecond: `7d`, `1h 30m`, `0s`.
pub(super) fn span(duration: Option<&prost_types::Duration>) -> String {
    let Some(duration) = duration else { return String::new() };
    let Ok(duration) = Duration::try_from(*duration) else { return duration.to_string() };
    units(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), usize::MAX)
}

/// How long something has lasted, in its two largest units.
pub(super) fn age(duration: Option<&prost_types::Duration>) -> String {
    let Some(duration) = duration else { return String::new() };
    let seconds = u64::try_from(duration.seconds).unwrap_or_default();
    units(seconds.saturating_mul(1_000), 2)
}

/// A size in bytes, in the largest unit that it reaches.
pub(super) fn bytes(bytes: u64) -> String {
    let mut scaled = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if scaled < 1_024.0 {
            break;
        }
        scaled /= 1_024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{scaled:.1} {unit}") }
}

/// A number of things a second.
pub(super) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 10.0 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

fn units(mut ms: u64, units_max: usize) -> String {
    let mut parts = Vec::new();
    for (unit, unit_ms) in SPAN_UNITS {
        if ms >= unit_ms && parts.len() < units_max {
            parts.push(format!("{}{unit}", ms / unit_ms));
            ms %= unit_ms;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// A point in time in ISO 8601.
pub(super) fn iso(time: Option<&Timestamp>) -> String {
    time.map(ToString::to_string).unwrap_or_default()
}

/// Labels or attributes, in the order of their keys. Control characters are escaped.
pub(super) fn labels(labels: &HashMap<String, String>) -> String {
    let sorted: BTreeMap<_, _> = labels.iter().collect();
    let mut text = String::new();
    for (key, value) in sorted {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{}={}", printable(key), printable(value));
    }
    text
}

/// Text that can't disturb a terminal or a table: control characters are escaped.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_back_as_what_it_was() {
        for text in ["10s", "7d", "1h 30m", "500ms", "1d 2h 3m 4s 5ms"] {
            assert_eq!(span(Some(&duration(text).unwrap())), text);
        }
        assert_eq!(span(Some(&prost_types::Duration::default())), "0s");
    }

    #[test]
    fn sizes_ages_and_rates_are_short() {
        let sizes = [0, 1_023, 1_024, 1_536, 5 << 30].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
        let ages = [0, 59, 3_723, 90_061].map(|seconds| age(Some(&prost_types::Duration { seconds, nanos: 999 })));
        assert_eq!(ages, ["0s", "59s", "1h 2m", "1d 1h"]);
        assert_eq!([0.0, 0.25, 1_234.5].map(rate), ["0", "0.2", "1234"]);
    }

    #[test]
    fn what_is_no_duration_time_or_pair_is_refused_with_an_example() {
        assert!(duration("soon").unwrap_err().contains("`10s`"));
        assert!(whole_seconds("1500ms").unwrap_err().contains("whole seconds"));
        assert!(time("yesterday").unwrap_err().contains("2026-01-31T12:00:00Z"));
        assert!(key_value("alone").unwrap_err().contains("key=value"));
    }

    #[test]
    fn a_time_is_a_date_or_an_age() {
        assert_eq!(time("1970-01-02T00:00:00Z").unwrap(), Timestamp { seconds: 86_400, nanos: 0 });
        let ago = time("1d").unwrap().seconds;
        let now = Timestamp::from(SystemTime::now()).seconds;
        assert!((now - 86_400 - 60..=now - 86_400).contains(&ago));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("grün\n\u{1b}[31m"), "grün\\n\\u{1b}[31m");
    }
}
