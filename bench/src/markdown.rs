//! The results as Markdown tables, for the README.

use std::fmt::Write as _;

use crate::cases::{CASES, Case};
use crate::chart::short;
use crate::report::Results;
use crate::run::Sample;
use crate::sides::{SIDES, Side};

/// Everything that was measured: rates, latencies, what they cost, the deep queue.
pub(crate) fn tables(results: &Results) -> String {
    let sides: Vec<Side> =
        SIDES.into_iter().filter(|side| CASES.iter().any(|case| rate(results, *case, *side).is_some())).collect();
    let rates = |case: &Case| !case.is_latency();
    let mut text = String::new();
    let parts: [(&str, Takes<'_>, Cell<'_>); 4] = [
        ("messages a second", &rates, &|case, side| rate(results, case, side)),
        ("latency, µs: p50 / p99 / p99.9", &|case| case.is_latency(), &|case, side| latency(results, case, side)),
        ("server: CPU µs a message, peak MiB", &|_| true, &|case, side| cost(results, case, side)),
        ("waiting; ms until it accepts again after a kill", &|case| *case == Case::Backlog, &|_, side| {
            backlog(results, side)
        }),
    ];
    for (title, takes, cell) in parts {
        let rows: Vec<Case> = CASES.into_iter().filter(|case| takes(case) && results.has(*case)).collect();
        if !rows.is_empty() {
            table(&mut text, title, &rows, &sides, cell);
        }
    }
    text + &results.orders.table()
}

/// Whether a case has a row in a table.
type Takes<'a> = &'a dyn Fn(&Case) -> bool;
/// What stands in a table for a case and a side.
type Cell<'a> = &'a dyn Fn(Case, Side) -> Option<String>;

fn table(text: &mut String, title: &str, rows: &[Case], sides: &[Side], cell: Cell<'_>) {
    // Writing to a string does not fail.
    write!(text, "| {title} |").ok();
    for side in sides {
        write!(text, " {side} |").ok();
    }
    writeln!(text, "\n| --- |{}", " ---: |".repeat(sides.len())).ok();
    for case in rows {
        write!(text, "| {case} |").ok();
        for side in sides {
            write!(text, " {} |", cell(*case, *side).unwrap_or_else(|| "–".to_owned())).ok();
        }
        text.push('\n');
    }
    text.push('\n');
}

fn rate(results: &Results, case: Case, side: Side) -> Option<String> {
    let rate = results.summary(case, side, |sample| Some(sample.per_s))?;
    Some(format!("{} ±{:.0}%", short(rate.median), rate.spread_percent()))
}

fn latency(results: &Results, case: Case, side: Side) -> Option<String> {
    let at = |value: fn(&Sample) -> Option<u64>| {
        results.summary(case, side, |sample| value(sample).map(|us| us as f64)).map(|summary| summary.median)
    };
    let p50 = at(|sample| Some(sample.latency?.p50_us))?;
    let p99 = at(|sample| Some(sample.latency?.p99_us))?;
    let p999 = at(|sample| Some(sample.latency?.p999_us))?;
    Some(format!("{p50:.0} / {p99:.0} / {p999:.0}"))
}

fn cost(results: &Results, case: Case, side: Side) -> Option<String> {
    let of = |value: fn(&Sample) -> f64| results.summary(case, side, |sample| Some(value(sample)));
    let (cpu, peak) = (of(|sample| sample.server_cpu_us)?, of(|sample| sample.server_peak_bytes as f64)?);
    (peak.median > 0.0).then(|| format!("{:.2}, {:.0}", cpu.median, peak.median / f64::from(1 << 20)))
}

fn backlog(results: &Results, side: Side) -> Option<String> {
    let of = |value: fn(&Sample) -> Option<u64>| {
        results.summary(Case::Backlog, side, |sample| value(sample).map(|value| value as f64))
    };
    let messages = of(|sample| Some(sample.backlog?.messages))?;
    let restart_ms = of(|sample| Some(sample.backlog?.restart_ms))?;
    Some(format!("{}; {:.0}", short(messages.median), restart_ms.median))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Backlog, Latency};

    const SAMPLE: Sample = Sample {
        per_s: 1_234_567.0,
        latency: None,
        server_cpu_us: 0.5,
        client_cpu_us: 0.5,
        server_peak_bytes: 7 << 20,
        backlog: None,
    };

    #[test]
    fn a_case_is_a_row_and_a_side_that_has_figures_a_column() {
        let mut results = Results::default();
        results.add(Case::Together, Side::Broker, Ok(SAMPLE));
        results.add(Case::Deliver, Side::Nats, Ok(Sample { per_s: 99_000.0, ..SAMPLE }));
        let text = tables(&results);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| messages a second | broker | nats |");
        assert_eq!(lines[1], "| --- | ---: | ---: |");
        assert_eq!(lines[2], "| deliver | – | 99.0 k ±0% |");
        assert_eq!(lines[3], "| together | 1.23 M ±0% | – |");
        assert_eq!(lines[6..9], ["| --- | ---: | ---: |", "| deliver | – | 0.50, 7 |", "| together | 0.50, 7 | – |"]);
        assert!(!text.contains("latency"), "{text}");
    }

    #[test]
    fn latencies_and_the_deep_queue_have_tables_of_their_own() {
        let mut results = Results::default();
        let latency = Some(Latency { p50_us: 100, p99_us: 200, p999_us: 300 });
        results.add(Case::Latency { per_s: 5_000 }, Side::Broker, Ok(Sample { latency, ..SAMPLE }));
        let backlog = Some(Backlog { messages: 10_000_000, restart_ms: 321 });
        results.add(Case::Backlog, Side::Broker, Ok(Sample { backlog, ..SAMPLE }));
        let text = tables(&results);
        for expected in ["| latency-5000 | 100 / 200 / 300 |", "| backlog | 10.0 M; 321 |", "| backlog | 1.23 M ±0% |"]
        {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
    }
}
