use super::{App, Notifications, StoreError};
use crate::domain::{Email, TimestampUs};

/// The queue of e-mails. Those of a customer leave in order: only the oldest one of each is ever due.
pub(crate) trait Emails: Send + Sync + 'static {
    /// When the next e-mail is due.
    fn next_due(&self) -> impl Future<Output = Result<Option<TimestampUs>, StoreError>> + Send;

    /// Takes e-mails that are due; nobody else gets them before `until`.
    fn claim(
        &self,
        now: TimestampUs,
        until: TimestampUs,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Email>, StoreError>> + Send;

    /// Writes down what became of an e-mail, and makes the customer's next one due if this one is done with.
    fn settle(
        &self,
        email: Email,
        settled: Settled,
        now: TimestampUs,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What became of an e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The mail server has it.
    Sent,
    /// The mail server will never take it.
    Refused {
        /// Why.
        reason: String,
    },
    /// The mail server does not take it now.
    PutOff {
        /// Why.
        reason: String,
        /// When to try again.
        due_at: TimestampUs,
    },
    /// It was not tried: somebody else may.
    Returned,
}

impl<S: Notifications + Emails> App<S> {
    /// The queue of e-mails.
    pub(crate) fn emails(&self) -> &S {
        &self.store
    }

    /// Waits until there may be more e-mail than before.
    pub(crate) async fn more_post(&self) {
        self.post.notified().await;
    }

    /// The time of day.
    pub(crate) fn time(&self) -> TimestampUs {
        self.now()
    }
}
