//! The one sentence above everything: how the stack is, and why. A pure function of what is shown.

use super::wire::{AcquirerState, BooksState, BooksStatus, Headline, PartState, QueueState, Tone};
use crate::acquirer::Mode;
use crate::part::Part;

/// A queue whose oldest message has waited for longer is behind, in milliseconds. One that merely works stays far below,
/// however much flows through it.
pub(super) const BEHIND_AGE_MS: i64 = 5_000;

/// What is shown, as far as the headline depends on it.
pub(super) struct Shown<'a> {
    pub(super) books: &'a BooksState,
    pub(super) parts: &'a [PartState],
    pub(super) queues: &'a [QueueState],
    pub(super) acquirer: Option<AcquirerState>,
    pub(super) broker_reached: bool,
    pub(super) dead_letters: u64,
}

/// The worst of what is to be said.
pub(super) fn headline(shown: &Shown<'_>) -> Headline {
    wrong(shown).or_else(|| behind(shown)).unwrap_or_else(|| calm(shown))
}

/// What nobody but a person can mend.
fn wrong(shown: &Shown<'_>) -> Option<Headline> {
    let Shown { books, dead_letters, .. } = shown;
    if let (BooksStatus::Wrong, [first, rest @ ..]) = (books.status, &books.wrong[..]) {
        let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
        return Some(Headline::new(Tone::Wrong, format!("The books are wrong: {first}{more}"), "books"));
    }
    let words = match dead_letters {
        0 => return None,
        1 => "1 message is in the dead letters".to_owned(),
        count => format!("{count} messages are in the dead letters"),
    };
    Some(Headline::new(Tone::Wrong, words, "letters"))
}

/// What comes right by itself once somebody is back.
fn behind(shown: &Shown<'_>) -> Option<Headline> {
    let behind = |words| Some(Headline::new(Tone::Behind, words, "flow"));
    let waits = |of: &str| match queued(shown.queues, of) {
        0 => String::new(),
        1 => "; 1 message waits for it".to_owned(),
        count => format!("; {count} messages wait for it"),
    };
    let dead: Vec<&PartState> = shown.parts.iter().filter(|part| !part.alive).collect();
    match dead[..] {
        [] => {}
        [part] => return behind(format!("{} is down{}", part.part, waits(part.kind))),
        [part, ..] => return behind(format!("{} and {} more are down", part.part, dead.len() - 1)),
    }
    if let Some(part) = shown.parts.iter().find(|part| !part.healthy) {
        return behind(format!("{} is not ready{}", part.part, waits(part.kind)));
    }
    if !shown.broker_reached {
        return behind("The broker does not tell how its queues stand".to_owned());
    }
    let (queue, age_ms) = oldest(shown.queues)?;
    let cause = match shown.acquirer {
        Some(AcquirerState { mode, .. }) if mode != Mode::Normal && queue.consumer == Part::PaymentService.name() => {
            format!("The acquirer {}", does(mode))
        }
        _ => format!("{} is behind", queue.consumer),
    };
    behind(format!("{cause}: the oldest message has waited for {} s", age_ms / 1_000))
}

/// Nothing is to be done.
fn calm(shown: &Shown<'_>) -> Headline {
    let Shown { books, .. } = shown;
    let (tone, words) = match (books.status, &books.error) {
        (BooksStatus::Balanced, _) => (Tone::Balanced, "The books balance".to_owned()),
        (BooksStatus::InFlight, _) => (Tone::Moving, "All is well, orders are on their way".to_owned()),
        (BooksStatus::Wrong | BooksStatus::Unknown, Some(error)) => {
            (Tone::Unknown, format!("The books can't be read: {error}"))
        }
        (BooksStatus::Wrong | BooksStatus::Unknown, None) => (Tone::Unknown, "Reading the books".to_owned()),
    };
    Headline::new(tone, words, "books")
}

fn queued(queues: &[QueueState], consumer: &str) -> u64 {
    let of_it = queues.iter().filter(|queue| queue.consumer == consumer);
    of_it.fold(0, |sum, queue| sum.saturating_add(queue.backlog))
}

/// The queue that is behind the most, if one is.
fn oldest(queues: &[QueueState]) -> Option<(&QueueState, i64)> {
    let waiting = queues.iter().filter(|queue| queue.backlog > 0);
    let ages = waiting.filter_map(|queue| Some((queue, queue.oldest_age_ms?)));
    ages.filter(|(_, age_ms)| *age_ms > BEHIND_AGE_MS).max_by_key(|(_, age_ms)| *age_ms)
}

fn does(mode: Mode) -> &'static str {
    match mode {
        Mode::Normal => "answers",
        Mode::Unavailable => "is down",
        Mode::Slow => "is slow",
        Mode::LostReplies => "loses its answers",
        Mode::DeclineAll => "declines",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn part(part: Part) -> PartState {
        PartState {
            part: part.name().to_owned(),
            kind: part.name(),
            address: String::new(),
            pid: None,
            alive: true,
            healthy: true,
            state: String::new(),
            commands: BTreeMap::new(),
        }
    }

    fn queue(backlog: u64, age_ms: i64) -> QueueState {
        QueueState {
            id: "payment-service.order-events".to_owned(),
            topic: "order-events".to_owned(),
            consumer: "payment-service".to_owned(),
            backlog,
            outstanding: 0,
            delayed: 0,
            oldest_age_ms: Some(age_ms),
            published_per_s: 0.0,
            delivered_per_s: 0.0,
            acked_per_s: 0.0,
            consumers: 1,
            dead_lettered: 0,
        }
    }

    /// The tone, the words and the target after something was spoiled.
    fn after(spoil: impl FnOnce(&mut BooksState, &mut Vec<PartState>, &mut Vec<QueueState>)) -> (Tone, String) {
        let (tone, words, _) = told(0, None, spoil);
        (tone, words)
    }

    fn told(
        dead_letters: u64,
        mode: Option<Mode>,
        spoil: impl FnOnce(&mut BooksState, &mut Vec<PartState>, &mut Vec<QueueState>),
    ) -> (Tone, String, &'static str) {
        let mut books = BooksState { status: BooksStatus::Balanced, read_at_ms: Some(1), ..BooksState::default() };
        let mut parts: Vec<PartState> = Part::ALL.map(part).into();
        let mut queues = vec![queue(0, 0)];
        spoil(&mut books, &mut parts, &mut queues);
        let acquirer = mode.map(|mode| AcquirerState { mode, percent: 100 });
        let (books, parts, queues) = (&books, &parts[..], &queues[..]);
        let Headline { tone, words, target } =
            headline(&Shown { books, parts, queues, acquirer, broker_reached: true, dead_letters });
        (tone, words, target)
    }

    #[test]
    fn load_alone_is_no_reason_to_worry() {
        assert_eq!(after(|_, _, _| {}), (Tone::Balanced, "The books balance".into()));
        let busy = after(|books, _, queues| {
            books.status = BooksStatus::InFlight;
            queues[0] = queue(5_000, BEHIND_AGE_MS);
        });
        assert_eq!(busy, (Tone::Moving, "All is well, orders are on their way".into()));
        let unread = after(|books, _, _| {
            *books = BooksState { error: Some("nobody is there".into()), ..BooksState::default() };
        });
        assert_eq!(unread, (Tone::Unknown, "The books can't be read: nobody is there".into()));
    }

    #[test]
    fn a_queue_is_behind_when_its_oldest_message_is_older_than_the_limit() {
        let old = |_: &mut BooksState, _: &mut Vec<PartState>, queues: &mut Vec<QueueState>| {
            queues[0] = queue(7, BEHIND_AGE_MS + 1_000);
        };
        let (tone, words) = after(old);
        assert_eq!(tone, Tone::Behind);
        assert_eq!(words, "payment-service is behind: the oldest message has waited for 6 s");
        let (_, words, target) = told(0, Some(Mode::Unavailable), old);
        assert_eq!((words.as_str(), target), ("The acquirer is down: the oldest message has waited for 6 s", "flow"));
        assert_eq!(after(|_, _, queues| queues[0] = queue(0, 60_000)).0, Tone::Balanced, "nothing waits");
    }

    #[test]
    fn a_part_that_is_down_is_named_with_what_waits_for_it() {
        let down = |parts: &mut Vec<PartState>, part: Part| {
            let down = parts.iter_mut().find(|state| state.kind == part.name()).unwrap();
            (down.alive, down.healthy) = (false, false);
        };
        let one = after(|books, parts, queues| {
            books.status = BooksStatus::Unknown;
            down(parts, Part::PaymentService);
            queues[0] = queue(150, 60_000);
        });
        assert_eq!(one, (Tone::Behind, "payment-service is down; 150 messages wait for it".into()));
        let two = after(|_, parts, _| {
            down(parts, Part::PaymentService);
            down(parts, Part::Broker);
        });
        assert_eq!(two, (Tone::Behind, "broker and 1 more are down".into()));
        let starting = after(|_, parts, _| parts[0].healthy = false);
        assert_eq!(starting.0, Tone::Behind);
        assert!(starting.1.contains("is not ready"), "{}", starting.1);
    }

    #[test]
    fn dead_letters_are_counted_and_linked_and_what_is_worse_comes_first() {
        assert_eq!(told(1, None, |_, _, _| {}), (Tone::Wrong, "1 message is in the dead letters".into(), "letters"));
        // The letter itself is what is wrong in the books.
        let letters = told(3, None, |books, _, _| books.status = BooksStatus::Wrong);
        assert_eq!(letters, (Tone::Wrong, "3 messages are in the dead letters".into(), "letters"));
        let worse = told(3, None, |books, _, _| {
            books.status = BooksStatus::Wrong;
            books.wrong = vec!["order 1 was charged 2 times".into(), "order 2 was charged 2 times".into()];
        });
        assert_eq!(
            worse,
            (Tone::Wrong, "The books are wrong: order 1 was charged 2 times, and 1 more".into(), "books")
        );
    }
}
