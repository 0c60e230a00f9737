//! What the broker is meant to reach, as ratios of figures of one run.

use std::fmt;

use crate::cases::{BYTES_DEFAULT, Case};
use crate::report::Results;
use crate::run::{Backlog, Latency, Sample};
use crate::sides::Side;

/// An aim, and what came out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Aim {
    what: &'static str,
    bound: Bound,
    found: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Least(f64),
    Most(f64),
}

impl Aim {
    fn is_reached(&self) -> bool {
        match self.bound {
            Bound::Least(least) => self.found >= least,
            Bound::Most(most) => self.found <= most,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, found, bound } = self;
        let (relation, bound) = match bound {
            Bound::Least(least) => ("at least", least),
            Bound::Most(most) => ("at most", most),
        };
        let verdict = if self.is_reached() { "reached" } else { "missed" };
        write!(f, "{what}: {found:.2} ({relation} {bound}): {verdict}")
    }
}

/// The aims of which all figures are there.
pub(crate) fn reached(results: &Results) -> Vec<Aim> {
    let publish = |batch| Case::Publish { batch, bytes: BYTES_DEFAULT };
    let rate = |case, side| results.summary(case, side, |sample| Some(sample.per_s)).map(|rate| rate.median);
    let ratio = |case, of, to| Some(rate(case, of)? / rate(case, to)?);
    let broker_to = |case, to| ratio(case, Side::Broker, to);
    let among_cases = |case, to| Some(rate(case, Side::Broker)? / rate(to, Side::Broker)?);
    let p99 = |side| {
        let p99_us = |sample: &Sample| sample.latency.map(|Latency { p99_us, .. }| p99_us as f64);
        results.summary(Case::Latency { per_s: 5_000 }, side, p99_us).map(|p99| p99.median)
    };
    let restart_s = |sample: &Sample| sample.backlog.map(|Backlog { restart_ms, .. }| restart_ms as f64 / 1_000.0);
    let restart_s = results.summary(Case::Backlog, Side::Broker, restart_s).map(|restart| restart.median);
    let p99_ratio = p99(Side::Broker).and_then(|broker| Some(broker / p99(Side::Raw)?));
    let (deliver, together) = (Case::Deliver, Case::Together);
    let all = [
        ("publish-1, to the server that does nothing", Bound::Least(0.8), broker_to(publish(1), Side::Noop)),
        ("publish-100, to the server that does nothing", Bound::Least(0.6), broker_to(publish(100), Side::Noop)),
        ("publish-1000, to the server that does nothing", Bound::Least(0.6), broker_to(publish(1_000), Side::Noop)),
        ("deliver, to the server that does nothing", Bound::Least(0.6), broker_to(deliver, Side::Noop)),
        ("publish-100, to NATS JetStream as it is", Bound::Least(5.0), broker_to(publish(100), Side::Nats)),
        ("publish-100, to Redis that syncs always", Bound::Least(5.0), broker_to(publish(100), Side::RedisAlways)),
        ("p99 at 5,000/s, to a synced append", Bound::Most(2.0), p99_ratio),
        ("a thousand topics, to one", Bound::Least(0.9), among_cases(Case::Topics, publish(100))),
        ("on top of the deep queue, to an empty one", Bound::Least(0.9), among_cases(Case::Backlog, together)),
        ("restart on the deep queue, in seconds", Bound::Most(2.0), restart_s),
    ];
    all.into_iter().filter_map(|(what, bound, found)| Some(Aim { what, bound, found: found? })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aim_says_whether_it_is_reached_on_either_side_of_its_bound() {
        let verdict = |bound, found| Aim { what: "x", bound, found }.to_string();
        assert_eq!(verdict(Bound::Least(0.6), 0.6), "x: 0.60 (at least 0.6): reached");
        assert_eq!(verdict(Bound::Least(0.6), 0.5), "x: 0.50 (at least 0.6): missed");
        assert_eq!(verdict(Bound::Most(2.0), 2.0), "x: 2.00 (at most 2): reached");
        assert_eq!(verdict(Bound::Most(2.0), 2.1), "x: 2.10 (at most 2): missed");
    }

    #[test]
    fn an_aim_without_figures_is_left_out() {
        assert_eq!(reached(&Results::default()), []);
    }
}
