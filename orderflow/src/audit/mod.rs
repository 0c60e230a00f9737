//! `orderflow audit`: asks everybody who keeps books, and checks that they balance.

mod books;
mod check;
mod invoices;
mod read;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use tokio::time::{self, Instant};

pub use self::books::{
    Books, Charge, ChargeState, DeadLetter, Error, Invoice, Kind, Money, Notification, Order, OrderState, Outcome,
    Payment, Queue,
};
pub use self::check::{Mismatch, Sums, Verdict, check};
pub(crate) use self::read::channel;

/// How often the books are read while waiting for them to balance.
const READ_EVERY: Duration = Duration::from_millis(250);
/// More mismatches than this are counted, not printed.
const MISMATCHES_PRINTED_MAX: usize = 50;

/// Whom the audit asks, each as `http://HOST:PORT`.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The broker.
    pub broker: String,
    /// The acquirer.
    pub acquirer: String,
    /// order-service.
    pub order_service: String,
    /// payment-service.
    pub payment_service: String,
    /// notification-service.
    pub notification_service: String,
}

/// Reads and checks the books, again and again until they balance or the time is over.
///
/// An error means that they could not be read to the last.
pub async fn run(addresses: &Addresses, wait: Duration) -> Result<Verdict, Error> {
    let deadline = Instant::now() + wait;
    loop {
        let verdict = Books::read(addresses).await.map(|books| check(&books));
        let balanced = verdict.as_ref().is_ok_and(Verdict::is_balanced);
        if balanced || Instant::now() + READ_EVERY > deadline {
            return verdict;
        }
        time::sleep(READ_EVERY).await;
    }
}

impl Verdict {
    /// Whether everything fits.
    pub fn is_balanced(&self) -> bool {
        self.mismatches.is_empty()
    }

    /// The verdict as text for people: figures, then what does not fit.
    pub fn table(&self) -> String {
        let sums = &self.sums;
        let mut text = String::new();
        for (what, count, amounts) in [
            ("orders accepted", sums.accepted, String::new()),
            ("  paid", sums.paid, amounts(&sums.paid_minor)),
            ("  declined", sums.declined, String::new()),
            ("  cancelled", sums.cancelled, String::new()),
            ("  refunded", sums.refunded, String::new()),
            ("  pending", sums.pending, String::new()),
            ("  dead-lettered", sums.dead_lettered, String::new()),
            ("synchronous refused", sums.refused_tries, String::new()),
            ("charges captured", sums.captured, amounts(&sums.captured_minor)),
            ("charges refunded", sums.refunds, amounts(&sums.refunded_minor)),
            ("charges refused", sums.refused, String::new()),
            ("notifications", sums.notifications, String::new()),
            ("invoices", sums.invoices, String::new()),
            ("dead letters", sums.dead_letters, String::new()),
        ] {
            let _ = writeln!(text, "{}", format!("{what:<20}{count:>9}  {amounts}").trim_end());
        }
        let _ = writeln!(text, "{:<20}{:>9}\n", "waiting in queues", sums.queued);
        for mismatch in self.mismatches.iter().take(MISMATCHES_PRINTED_MAX) {
            let _ = writeln!(text, "mismatch: {mismatch}");
        }
        match self.mismatches.len() {
            0 => text.push_str("the books balance"),
            count => {
                let _ = write!(text, "the books do not balance: {count} mismatch(es)");
            }
        }
        text
    }

    /// The verdict as one JSON document for scripts, with every mismatch.
    pub fn json(&self) -> serde_json::Value {
        let mismatches: Vec<String> = self.mismatches.iter().map(ToString::to_string).collect();
        serde_json::json!({ "balanced": self.is_balanced(), "sums": self.sums, "mismatches": mismatches })
    }
}

/// Amounts, for example `64900 EUR minor`: in minor units, as they travel.
fn amounts(minor: &BTreeMap<String, i128>) -> String {
    let amounts: Vec<String> = minor.iter().map(|(currency, amount)| format!("{amount} {currency} minor")).collect();
    amounts.join(", ")
}
