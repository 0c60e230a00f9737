//! What the witness has seen, and what of it the broker or a relay should not have done. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::audit::{Books, Order, OrderState, Outcome, Payment};
use crate::chaos::poison;

/// One delivery.
#[derive(Clone, Debug)]
pub(in crate::chaos) struct Seen {
    pub(in crate::chaos) topic: &'static str,
    /// The broker numbers the messages of a topic as they are published.
    pub(in crate::chaos) number: u64,
    /// The ordering key.
    pub(in crate::chaos) order: String,
    /// Its id, which a repetition shares.
    pub(in crate::chaos) event: String,
    /// What happened: `OrderPaid`.
    pub(in crate::chaos) kind: String,
}

type Key = (&'static str, String);

/// Everything that was seen.
#[derive(Debug, Default)]
pub(in crate::chaos) struct Ledger {
    /// Of each topic and ordering key: how its messages stand.
    keys: HashMap<Key, BTreeMap<u64, Standing>>,
    /// Keys of which something was sent back. What follows in the same answer of the broker was on its way already.
    held: HashSet<Key>,
    /// Of each order the ids of the events of each kind.
    events: HashMap<String, BTreeMap<String, BTreeSet<String>>>,
    wrong: BTreeSet<String>,
    paid: usize,
}

/// What a message may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It was sent back: it comes again before anything else of its key does.
    Owed,
    /// Its ack is on the way: it may come again, or not.
    Unsure,
    /// It must not come again.
    Done,
}

impl Ledger {
    /// The next deliveries of a topic come in another answer of the broker.
    pub(in crate::chaos) fn begin_batch(&mut self, topic: &'static str) {
        self.held.retain(|(of, _)| *of != topic);
    }

    /// Takes a delivery, and says whether it is to be acked; an unlucky one is sent back once.
    pub(in crate::chaos) fn see(&mut self, seen: Seen, is_unlucky: bool) -> bool {
        let Seen { topic, number, order, event, kind } = seen;
        let what = || format!("{kind} of {order} (message {number} of {topic})");
        let key = (topic, order.clone());
        let lane = self.keys.entry(key.clone()).or_default();
        let standing = lane.get(&number).copied();
        if standing == Some(Standing::Done) {
            self.wrong.insert(format!("{} came again after its ack", what()));
            return true;
        }
        if self.held.contains(&key) {
            lane.insert(number, Standing::Owed);
            return false;
        }
        let owed = lane.range(..number).find(|(_, standing)| **standing == Standing::Owed);
        if let Some((earlier, _)) = owed {
            self.wrong.insert(format!("{} came before message {earlier}, which was sent back", what()));
        }
        let later = lane.range(number + 1..).find(|(_, standing)| **standing != Standing::Owed);
        if let (None, Some((later, _))) = (standing, later) {
            self.wrong.insert(format!("{} came after message {later} of the same key", what()));
        }
        if is_unlucky && standing.is_none() {
            lane.insert(number, Standing::Owed);
            self.held.insert(key);
            return false;
        }
        lane.insert(number, Standing::Unsure);
        let is_new = self.events.entry(order).or_default().entry(kind.clone()).or_default().insert(event);
        self.paid += usize::from(is_new && kind == "OrderPaid");
        true
    }

    /// The broker has confirmed the ack of a message.
    pub(in crate::chaos) fn acked(&mut self, topic: &'static str, order: String, number: u64) {
        self.keys.entry((topic, order)).or_default().insert(number, Standing::Done);
    }

    /// Orders of which it was told that they are paid.
    pub(in crate::chaos) fn paid(&self) -> usize {
        self.paid
    }

    /// What should not have been delivered as it was.
    pub(in crate::chaos) fn wrong(&self) -> impl Iterator<Item = &String> {
        self.wrong.iter()
    }

    /// What the books tell and no event told, and the reverse.
    pub(in crate::chaos) fn compare(&self, books: &Books) -> Vec<String> {
        let mut found = Vec::new();
        let mut known = HashSet::new();
        for order in &books.orders {
            known.insert(order.id.as_str());
            let told = self.events.get(&order.id);
            for &kind in kinds_of_order(order) {
                let count = told.and_then(|told| told.get(kind)).map_or(0, BTreeSet::len);
                // A card that was declined may be followed by another one.
                if count == 0 || (count > 1 && kind != "OrderDeclined") {
                    found.push(format!("order {}: {kind} was told {count} times", order.id));
                }
            }
        }
        for payment in &books.payments {
            let told = self.events.get(&payment.order);
            if let Some(kind) =
                kind_of_payment(payment).filter(|kind| !told.is_some_and(|told| told.contains_key(*kind)))
            {
                found.push(format!("order {}: {kind} was never told", payment.order));
            }
        }
        for order in self.events.keys().filter(|order| !poison::is_poison(order) && !known.contains(order.as_str())) {
            found.push(format!("events were told of order {order}, which order-service does not know"));
        }
        found.sort();
        found
    }
}

fn kinds_of_order(order: &Order) -> &'static [&'static str] {
    match order.state {
        OrderState::Pending => &["OrderPlaced"],
        OrderState::Paid | OrderState::RefundPending => &["OrderPlaced", "OrderPaid"],
        OrderState::Refunded => &["OrderPlaced", "OrderPaid", "OrderRefunded"],
        OrderState::Declined(_) => &["OrderPlaced", "OrderDeclined"],
        OrderState::Cancelled | OrderState::Refused => &["OrderPlaced", "OrderCancelled"],
    }
}

fn kind_of_payment(payment: &Payment) -> Option<&'static str> {
    match payment.outcome {
        Outcome::Pending => None,
        Outcome::Captured(_) => payment.capture_told.then_some("PaymentCaptured"),
        Outcome::Declined(_) => Some("PaymentDeclined"),
        Outcome::Voided => Some("PaymentVoided"),
        Outcome::Refunded => Some("PaymentRefunded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Money;

    const TOPIC: &str = "order-events";

    fn seen(number: u64, order: &str, kind: &str) -> Seen {
        Seen { topic: TOPIC, number, order: order.into(), event: format!("event {number}"), kind: kind.into() }
    }

    fn wrong(ledger: &Ledger) -> Vec<&String> {
        ledger.wrong().collect()
    }

    #[test]
    fn what_comes_again_after_its_ack_is_noticed() {
        let mut ledger = Ledger::default();
        assert!(ledger.see(seen(1, "a", "OrderPlaced"), false));
        // Nobody knows whether the ack arrived.
        assert!(ledger.see(seen(1, "a", "OrderPlaced"), false));
        assert!(wrong(&ledger).is_empty());
        ledger.acked(TOPIC, "a".into(), 1);
        ledger.see(seen(1, "a", "OrderPlaced"), false);
        assert!(wrong(&ledger)[0].contains("came again"), "{:?}", wrong(&ledger));
    }

    #[test]
    fn what_overtakes_a_message_that_was_sent_back_is_noticed() {
        let mut ledger = Ledger::default();
        assert!(!ledger.see(seen(1, "a", "OrderPlaced"), true));
        assert!(!ledger.see(seen(2, "a", "OrderPaid"), false), "it was on its way already");
        assert!(ledger.see(seen(3, "b", "OrderPlaced"), false), "another key has nothing to do with it");
        ledger.begin_batch(TOPIC);
        assert!(ledger.see(seen(1, "a", "OrderPlaced"), true), "sent back once is enough");
        assert!(wrong(&ledger).is_empty(), "{:?}", wrong(&ledger));

        let mut ledger = Ledger::default();
        ledger.see(seen(1, "a", "OrderPlaced"), true);
        ledger.begin_batch(TOPIC);
        ledger.see(seen(2, "a", "OrderPaid"), false);
        assert!(wrong(&ledger)[0].contains("came before"), "{:?}", wrong(&ledger));
    }

    #[test]
    fn what_comes_too_late_is_noticed() {
        let mut ledger = Ledger::default();
        ledger.see(seen(2, "a", "OrderPaid"), false);
        ledger.see(seen(1, "a", "OrderPlaced"), false);
        assert!(wrong(&ledger)[0].contains("came after"), "{:?}", wrong(&ledger));
        let mut ledger = Ledger::default();
        // Both came in one answer, and the broker died before their acks.
        for number in [1, 2, 1, 2] {
            ledger.see(seen(number, "a", "OrderPaid"), false);
        }
        assert!(wrong(&ledger).is_empty(), "{:?}", wrong(&ledger));
    }

    #[test]
    fn an_event_that_never_left_an_outbox_is_missed_though_no_book_lacks_anything() {
        let order = |id: &str, state| Order {
            id: id.into(),
            customer: "alice".into(),
            total: Money { currency: "EUR".into(), amount_minor: 1 },
            state,
            invoice: String::new(),
        };
        let mut books = Books { orders: vec![order("a", OrderState::Declined("no".into()))], ..Books::default() };
        let mut ledger = Ledger::default();
        ledger.see(seen(1, "a", "OrderPlaced"), false);
        assert_eq!(ledger.compare(&books), ["order a: OrderDeclined was told 0 times"]);
        ledger.see(seen(2, "a", "OrderDeclined"), false);
        assert!(ledger.compare(&books).is_empty());
        ledger.see(seen(3, "a", "OrderPlaced"), false);
        assert_eq!(ledger.compare(&books), ["order a: OrderPlaced was told 2 times"]);
        books.orders.clear();
        assert_eq!(ledger.compare(&books), ["events were told of order a, which order-service does not know"]);
    }
}
