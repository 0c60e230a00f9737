//! Sets aside what can never be handled, with the reason.

use std::time::Duration;

use google_cloud_gax::error::rpc::Code;
use google_cloud_pubsub::client::BasePublisher;
use google_cloud_pubsub::model::Message;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::broker;
use crate::event::{CE_ID, CE_SOURCE, CE_TIME, CE_TYPE};

/// Attribute of a dead letter: why the consumer could not handle it.
pub const DEAD_LETTER_REASON: &str = "dead-letter-reason";

/// Attribute of a dead letter: the subscription that it came from.
pub const DEAD_LETTER_SUBSCRIPTION: &str = "dead-letter-subscription";

/// Attribute of a dead letter that is only a part of its message: why the broker refused the whole.
pub const DEAD_LETTER_CUT: &str = "dead-letter-cut";

/// How much of a message's data is kept when the broker refuses the whole, in bytes.
pub const CUT_DATA_BYTES_MAX: usize = 1024 * 1024;

/// How long a reason may be, in bytes: as long as an attribute's value may be.
const REASON_BYTES_MAX: usize = 1_024;

/// How long a dead letter waits after it was not taken, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// What became of a message that can never be handled.
#[derive(Debug)]
pub(super) enum Fate {
    /// The broker has it.
    Set,
    /// The service stops before that.
    Stopping,
    /// The broker does not even take a part of it, for this reason.
    Refused(String),
}

#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    pub(super) publisher: BasePublisher,
    pub(super) topic: String,
    pub(super) subscription: String,
}

impl DeadLetters {
    /// Publishes a copy of `message`, or as much of it as the broker takes: with the two attributes that say why, a
    /// message may be larger than messages can be.
    pub(super) async fn put(&self, message: &Message, reason: &str, stopping: &CancellationToken) -> Fate {
        let id = &message.message_id;
        let mut letter = self.letter(message, reason);
        let mut is_cut = false;
        let mut failing = false;
        loop {
            // A publisher keeps a task for each ordering key for as long as it lives; this one lives for one message.
            let publisher = self.publisher.publisher(&self.topic).set_message_count_threshold(1_u32).build();
            let error = match publisher.publish(letter.clone()).await {
                Ok(_) => {
                    info!(subscription = self.subscription, message_id = id, reason, "a message was set aside");
                    return Fate::Set;
                }
                Err(error) => error,
            };
            let problem = broker::reason(&error);
            let refused = broker::code(&error) == Some(Code::InvalidArgument);
            if refused && is_cut {
                return Fate::Refused(problem);
            }
            if refused {
                letter = self.part(message, reason, &problem);
                is_cut = true;
                continue;
            }
            if !failing {
                let (topic, error) = (&self.topic, problem);
                warn!(topic, message_id = id, error, "a message cannot be set aside; it waits until it can");
                failing = true;
            }
            tokio::select! {
                () = stopping.cancelled() => return Fate::Stopping,
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

    /// The beginning of the data, and the attributes that name the event.
    fn part(&self, message: &Message, reason: &str, problem: &str) -> Message {
        let whole = self.letter(message, reason);
        let kept = [CE_ID, CE_TYPE, CE_SOURCE, CE_TIME, DEAD_LETTER_REASON, DEAD_LETTER_SUBSCRIPTION];
        let mut attributes = whole.attributes;
        attributes.retain(|name, _| kept.contains(&name.as_str()));
        attributes.insert(DEAD_LETTER_CUT.into(), cut(problem).to_owned());
        let data = whole.data.slice(..whole.data.len().min(CUT_DATA_BYTES_MAX));
        Message::new().set_data(data).set_ordering_key(whole.ordering_key).set_attributes(attributes)
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
