//! Sets aside what can never be handled, with the reason.

use std::time::Duration;

use google_cloud_pubsub::client::BasePublisher;
use google_cloud_pubsub::model::Message;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Attribute of a dead letter: why the consumer could not handle it.
pub const DEAD_LETTER_REASON: &str = "dead-letter-reason";

/// Attribute of a dead letter: the subscription that it came from.
pub const DEAD_LETTER_SUBSCRIPTION: &str = "dead-letter-subscription";

/// How long a reason may be, in bytes: as long as an attribute's value may be.
const REASON_BYTES_MAX: usize = 1_024;

/// How long a dead letter waits after it was not taken, in milliseconds.
const RETRY_MS: u64 = 1_000;

#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    pub(super) publisher: BasePublisher,
    pub(super) topic: String,
    pub(super) subscription: String,
}

impl DeadLetters {
    /// Publishes a copy of `message`. True when the broker has it; false when the service stops before.
    pub(super) async fn put(&self, message: &Message, reason: &str, stopping: &CancellationToken) -> bool {
        let id = &message.message_id;
        let mut failing = false;
        loop {
            // A publisher keeps a task for each ordering key for as long as it lives; this one lives for one message.
            let publisher = self.publisher.publisher(&self.topic).set_message_count_threshold(1_u32).build();
            match publisher.publish(self.letter(message, reason)).await {
                Ok(_) => {
                    info!(subscription = self.subscription, message_id = id, reason, "a message was set aside");
                    return true;
                }
                Err(error) if !failing => {
                    let error = crate::broker::reason(&error);
                    warn!(
                        topic = self.topic,
                        message_id = id,
                        error,
                        "a message cannot be set aside; it waits until it can"
                    );
                    failing = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stopping.cancelled() => return false,
                () = tokio::time::sleep(Duration::from_millis(RETRY_MS)) => {}
            }
        }
    }

    fn letter(&self, message: &Message, reason: &str) -> Message {
        let mut attributes = message.attributes.clone();
        attributes.insert(DEAD_LETTER_REASON.into(), cut(reason).to_owned());
        attributes.insert(DEAD_LETTER_SUBSCRIPTION.into(), self.subscription.clone());
        Message::new()
            .set_data(message.data.clone())
            .set_ordering_key(message.ordering_key.clone())
            .set_attributes(attributes)
    }
}

/// The beginning of a reason that fits into an attribute, cut between two characters.
fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let reason = "ö".repeat(REASON_BYTES_MAX);
        assert_eq!(cut(&reason).len(), REASON_BYTES_MAX);
        let reason = format!("x{reason}");
        assert_eq!(cut(&reason).len(), REASON_BYTES_MAX - 1);
    }
}
