//! After the last fault: waits until everything has come to its end, and judges.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::diary::Diary;
use super::poison::Letters;
use super::witness::Witness;
use crate::audit::{Addresses, Books, Sums, check};
use crate::lab::Lab;
use crate::queues;

/// How often the books are read.
const READ_EVERY: Duration = Duration::from_millis(500);
/// What is wrong for so long while no message waits anywhere stays wrong. No part sleeps longer before it tries again
/// what failed.
const QUIET: Duration = Duration::from_secs(20);
/// Messages that wait for so long while nothing else changes will wait for ever. The longest ack deadline ends within it.
const STUCK: Duration = Duration::from_secs(60);
/// What has not come to its end by then is not waited for, even if it moves: a machine would have to be slow beyond use.
const SETTLED_WITHIN: Duration = Duration::from_secs(600);

/// What the run comes to.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) sums: Sums,
    /// Everything that is wrong. Nothing when all is well.
    pub(super) wrong: Vec<String>,
    /// Dead letters of poison that were discarded.
    pub(super) discarded: usize,
}

/// Reads the books until all is well, or it is clear that it will not be.
pub(super) async fn settle(lab: &Lab, witness: &Witness, diary: &Diary) -> Judgement {
    let addresses = lab.addresses();
    let deadline = Instant::now() + SETTLED_WITHIN;
    let mut letters = Letters::default();
    let mut last = (Vec::new(), 0, Instant::now());
    loop {
        let Reading { sums, mut wrong, waits, queued } = read(&addresses, witness, diary, &mut letters).await;
        let dead = lab.instances().into_iter().filter(|instance| lab.process(*instance).is_none());
        wrong.extend(dead.map(|instance| format!("{instance} ended by itself after the last fault")));
        if (&last.0, last.1) != (&wrong, queued) {
            last = (wrong.clone(), queued, Instant::now());
        }
        let unchanged = last.2.elapsed();
        let is_settled = queued == 0 && (!waits || unchanged > QUIET);
        if is_settled || unchanged > STUCK || Instant::now() > deadline {
            return Judgement { sums, wrong, discarded: letters.discarded };
        }
        time::sleep(READ_EVERY).await;
    }
}

/// How everything stands.
#[derive(Default)]
struct Reading {
    sums: Sums,
    wrong: Vec<String>,
    /// Whether something of it may still come right.
    waits: bool,
    /// Messages that wait anywhere, also for the witness.
    queued: u64,
}

async fn read(addresses: &Addresses, witness: &Witness, diary: &Diary, letters: &mut Letters) -> Reading {
    let unread = |error: String| Reading { wrong: vec![error], waits: true, ..Reading::default() };
    if let Err(error) = letters.discard(&addresses.broker).await {
        return unread(error.to_string());
    }
    let books = match Books::read(addresses).await {
        Ok(books) => books,
        Err(error) => return unread(error.to_string()),
    };
    let queued = match queues::ask(&addresses.broker).await {
        Ok(queues) => queues.iter().map(|queue| queue.backlog_messages).sum(),
        Err(error) => return unread(error.to_string()),
    };
    let verdict = check(&books);
    let mut wrong: Vec<String> = verdict.mismatches.iter().map(ToString::to_string).collect();
    let pages = diary.pages();
    let ledger = witness.ledger();
    wrong.extend(letters.missing(&pages.poison));
    wrong.extend(ledger.compare(&books));
    let waits = !wrong.is_empty();
    wrong.extend(vanished(&books, &pages.accepted));
    wrong.extend(pages.history.iter().filter(|entry| entry.unexpected).map(|entry| entry.what.clone()));
    wrong.extend(ledger.wrong().cloned());
    Reading { sums: verdict.sums, wrong, waits, queued }
}

/// Orders that customers were told are accepted, and that order-service does not have as they were placed.
fn vanished(books: &Books, accepted: &[super::diary::Accepted]) -> Vec<String> {
    let kept: HashMap<&str, _> = books.orders.iter().map(|order| (order.id.as_str(), &order.total)).collect();
    let problem = |order: &super::diary::Accepted| match kept.get(order.id.as_str()) {
        None => Some(format!("order {} was accepted, and order-service does not know it", order.id)),
        Some(total) if **total != order.total => Some(format!("order {} was accepted with another total", order.id)),
        Some(_) => None,
    };
    accepted.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Money, Order, OrderState};
    use crate::chaos::diary::Accepted;

    #[test]
    fn an_accepted_order_that_is_not_there_is_missed() {
        let total = |amount_minor| Money { currency: "EUR".into(), amount_minor };
        let order = Order {
            id: "a".into(),
            customer: "alice".into(),
            total: total(1),
            state: OrderState::Paid,
            invoice: String::new(),
        };
        let books = Books { orders: vec![order], ..Books::default() };
        let accepted = |id: &str, amount_minor| Accepted { id: id.into(), total: total(amount_minor) };
        assert!(vanished(&books, &[accepted("a", 1)]).is_empty());
        assert!(vanished(&books, &[accepted("b", 1)])[0].contains("does not know"));
        assert!(vanished(&books, &[accepted("a", 2)])[0].contains("another total"));
    }
}
