//! Reads the books again and again while somebody looks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use service_kit::clock::now_ms;
use tokio::{task, time};

use super::super::live::Live;
use super::super::wire::{BooksState, BooksStatus};
use crate::audit::{self, Books, Mismatch, Verdict};

/// The shortest pause between two readings.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A reading asks for everything: the pause after it is so many times as long as it took.
const PAUSE_TIMES: u32 = 10;
/// The pause after books that balance, as long as nothing moves.
const PAUSE_AT_REST: Duration = Duration::from_secs(10);
/// How often it is looked whether something moves.
const LOOK: Duration = Duration::from_millis(250);
/// Mismatches that are told; the others are counted.
const MISMATCHES_TOLD_MAX: usize = 20;
/// An order that waits for so long while no message is on its way has lost its message, in milliseconds.
const STUCK_MS: i64 = 60_000;

pub(super) async fn read(live: Arc<Live>) {
    let mut judge = Judge::default();
    loop {
        while !live.is_looked_at() {
            live.looks.notified().await;
        }
        let (moved, began) = (live.movement(), Instant::now());
        let books = match verdict(&live).await {
            Ok(verdict) => {
                let status = judge.judge(&verdict, now_ms());
                BooksState { wrong: judge.beside_letters(&verdict), ..told(verdict, status) }
            }
            Err(error) => {
                judge = Judge::default();
                BooksState { status: BooksStatus::Unknown, error: Some(error), ..live.books() }
            }
        };
        let rests = books.status == BooksStatus::Balanced;
        let pause = PAUSE_MIN.max(began.elapsed() * PAUSE_TIMES);
        live.set_books(books, i64::try_from(pause.as_millis()).unwrap_or(i64::MAX / 2));
        time::sleep(pause).await;
        while rests && live.movement() == moved && live.is_looked_at() && began.elapsed() < PAUSE_AT_REST {
            time::sleep(LOOK).await;
        }
    }
}

async fn verdict(live: &Live) -> Result<Verdict, String> {
    let books = Books::read(&live.site.addresses).await.map_err(|error| error.to_string())?;
    checked(move || audit::check(&books)).await
}

/// Checks apart: the sums of many orders take a while, in which others want to run. A check that breaks off is no
/// verdict, and least of all a good one.
async fn checked(check: impl FnOnce() -> Verdict + Send + 'static) -> Result<Verdict, String> {
    task::spawn_blocking(check).await.map_err(|error| format!("the books could not be checked: {error}"))
}

fn told(verdict: Verdict, status: BooksStatus) -> BooksState {
    BooksState {
        status,
        read_at_ms: Some(now_ms()),
        mismatches: verdict.mismatches.iter().take(MISMATCHES_TOLD_MAX).map(ToString::to_string).collect(),
        mismatches_total: verdict.mismatches.len(),
        wrong: Vec::new(),
        sums: Some(verdict.sums),
        error: None,
    }
}

/// Tells what is wrong from what waits. The books are not read at one instant, so that one reading proves nothing.
#[derive(Debug, Default)]
struct Judge {
    /// What did not fit in the reading before.
    before: BTreeSet<Mismatch>,
    /// Whether anything was on its way in the reading before.
    moved_before: bool,
    /// What has waited while the queues were empty, and since when.
    stuck: Option<(i64, BTreeSet<Mismatch>)>,
    /// What made the last reading wrong, a few of it.
    wrong: Vec<Mismatch>,
}

impl Judge {
    fn judge(&mut self, verdict: &Verdict, now_ms: i64) -> BooksStatus {
        let sums = &verdict.sums;
        let now: BTreeSet<Mismatch> = verdict.mismatches.iter().cloned().collect();
        let moves = sums.queued > 0 || sums.pending > 0;
        let at_rest = !moves && !self.moved_before;
        let stands = now.intersection(&self.before);
        let wrong = stands.filter(|mismatch| !waits(mismatch) && (at_rest || never_mends(mismatch)));
        self.wrong = wrong.take(MISMATCHES_TOLD_MAX).cloned().collect();
        if self.stuck(&now, sums.queued, now_ms) {
            let waiting = self.stuck.iter().flat_map(|(_, still)| still);
            self.wrong.extend(waiting.take(MISMATCHES_TOLD_MAX).cloned());
        }
        (self.before, self.moved_before) = (now, moves);
        match () {
            () if !self.wrong.is_empty() => BooksStatus::Wrong,
            () if verdict.is_balanced() => BooksStatus::Balanced,
            () => BooksStatus::InFlight,
        }
    }

    /// What is wrong beside the dead letters, and beside the orders that wait because of one.
    fn beside_letters(&self, verdict: &Verdict) -> Vec<String> {
        let stopped = |id: &String| {
            verdict.mismatches.iter().any(|other| matches!(other, Mismatch::DeadLetter { order, .. } if order == id))
        };
        let beside = self.wrong.iter().filter(|mismatch| match mismatch {
            Mismatch::DeadLetter { .. } => false,
            Mismatch::Pending { order, .. } => !stopped(order),
            _ => true,
        });
        beside.map(ToString::to_string).collect()
    }

    /// Whether an order has waited for long although no message is on its way.
    fn stuck(&mut self, now: &BTreeSet<Mismatch>, queued: u64, now_ms: i64) -> bool {
        let waiting = || now.iter().filter(|mismatch| waits(mismatch)).cloned();
        let still: BTreeSet<Mismatch> = match &self.stuck {
            Some((_, before)) if queued == 0 => waiting().filter(|mismatch| before.contains(mismatch)).collect(),
            _ => BTreeSet::new(),
        };
        match &mut self.stuck {
            Some((since_ms, before)) if !still.is_empty() => {
                *before = still;
                now_ms - *since_ms >= STUCK_MS
            }
            stuck => {
                *stuck = (queued == 0).then(|| (now_ms, waiting().collect()));
                false
            }
        }
    }
}

/// Whether it is mere waiting.
fn waits(mismatch: &Mismatch) -> bool {
    matches!(mismatch, Mismatch::Pending { .. } | Mismatch::Queued { .. })
}

/// Whether no message that is on its way could mend it.
fn never_mends(mismatch: &Mismatch) -> bool {
    matches!(mismatch, Mismatch::ChargedRepeatedly { .. } | Mismatch::OtherAmount { .. } | Mismatch::DeadLetter { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Sums;

    fn verdict(queued: u64, pending: usize, mismatches: &[Mismatch]) -> Verdict {
        Verdict { sums: Sums { queued, pending, ..Sums::default() }, mismatches: mismatches.to_vec() }
    }

    fn pending(order: &str) -> Mismatch {
        Mismatch::Pending { order: order.into(), what: "payment" }
    }

    fn twice(order: &str) -> Mismatch {
        Mismatch::ChargedRepeatedly { order: order.into(), times: 2 }
    }

    fn not_charged(order: &str) -> Mismatch {
        Mismatch::NotCharged { order: order.into() }
    }

    fn statuses(readings: &[Verdict]) -> Vec<BooksStatus> {
        let mut judge = Judge::default();
        readings.iter().zip(0..).map(|(reading, second)| judge.judge(reading, second * 1_000)).collect()
    }

    use BooksStatus::{Balanced, InFlight, Wrong};

    #[tokio::test]
    async fn a_check_that_breaks_off_is_no_verdict() {
        assert!(checked(Verdict::default).await.is_ok_and(|verdict| verdict.is_balanced()));
        let error = checked(|| panic!("a sum is too large")).await.unwrap_err();
        assert!(error.contains("could not be checked"), "{error}");
    }

    #[test]
    fn waiting_is_not_wrong() {
        let waiting = verdict(1, 1, &[pending("1"), Mismatch::Queued { queue: "q".into(), messages: 1 }]);
        assert_eq!(
            statuses(&[waiting.clone(), waiting.clone(), waiting, verdict(0, 0, &[])])[2..],
            [InFlight, Balanced]
        );
    }

    #[test]
    fn one_reading_proves_nothing_and_two_do() {
        let wrong = verdict(0, 0, &[not_charged("1")]);
        assert_eq!(statuses(&[wrong.clone(), wrong.clone(), verdict(0, 0, &[])]), [InFlight, Wrong, Balanced]);
        assert_eq!(statuses(&[wrong, verdict(0, 0, &[not_charged("2")])]), [InFlight, InFlight], "another order");
    }

    #[test]
    fn while_messages_are_on_their_way_only_what_they_can_not_mend_is_wrong() {
        let lags = verdict(5, 0, &[not_charged("1")]);
        assert_eq!(statuses(&[lags.clone(), lags.clone(), lags]), [InFlight, InFlight, InFlight]);
        let charged = verdict(5, 5, &[twice("1")]);
        assert_eq!(statuses(&[charged.clone(), charged]), [InFlight, Wrong]);
        let letter = verdict(5, 5, &[Mismatch::DeadLetter { order: String::new(), reason: "no".into() }]);
        assert_eq!(statuses(&[letter.clone(), letter]), [InFlight, Wrong]);
    }

    #[test]
    fn an_order_that_a_dead_letter_stops_is_no_cause_beside_it() {
        let mut judge = Judge::default();
        let letter = Mismatch::DeadLetter { order: "1".into(), reason: "no".into() };
        let stopped = verdict(0, 0, &[pending("1"), letter]);
        judge.judge(&stopped, 0);
        assert_eq!(judge.judge(&stopped, STUCK_MS), Wrong);
        assert_eq!((judge.wrong.len(), judge.beside_letters(&stopped)), (2, vec![]));
        assert_eq!(judge.beside_letters(&verdict(0, 0, &[])).len(), 1, "without the letter the order is named");
    }

    #[test]
    fn an_order_whose_message_is_lost_is_wrong_in_the_end() {
        let mut judge = Judge::default();
        let lost = verdict(0, 1, &[pending("1")]);
        assert_eq!(judge.judge(&lost, 0), InFlight);
        assert_eq!(judge.judge(&lost, STUCK_MS - 1), InFlight);
        assert_eq!(judge.judge(&lost, STUCK_MS), Wrong);
        assert_eq!(judge.wrong, [pending("1")], "it is named");
        assert_eq!(judge.judge(&verdict(0, 1, &[pending("2")]), STUCK_MS + 1), InFlight, "another one");
        assert_eq!(judge.judge(&verdict(1, 1, &[pending("2")]), 3 * STUCK_MS), InFlight, "its message waits");
        assert_eq!(judge.judge(&verdict(0, 1, &[pending("2")]), 4 * STUCK_MS), InFlight);
    }
}
