//! Messages and consumers come and go.

use super::Broker;
use crate::config::AckDeadline;
use crate::error::Error;
use crate::ids::{ConsumerId, Meta, Seq, SubscriptionId, Time, TopicId};
use crate::names::{SubscriptionName, TopicName};
use crate::output::{AckOutcome, AckRef, Attach, Detach, ModifyOutcome, Output, Published};
use crate::record::Record;

impl Broker {
    /// Publishes messages, at least one and at most [`crate::Limits::publish_messages_max`].
    pub fn handle_publish(
        &mut self,
        topic: &TopicName,
        messages: &[Meta],
        now: Time,
        out: &mut Output,
    ) -> Result<Published, Error> {
        let id = self.topic_id(topic)?;
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let first = self.durable.topics[&id].last.next();
        self.record(Record::Published { topic: id, first, count, time: now }, out);
        Ok(Published { topic: id, first, count })
    }

    /// Attaches a consumer to a subscription. Deliveries follow as effects, possibly in `out` already.
    pub fn handle_attach(
        &mut self,
        _consumer: ConsumerId,
        subscription: &SubscriptionName,
        _attach: Attach,
        _now: Time,
        _out: &mut Output,
    ) -> Result<SubscriptionId, Error> {
        self.subscription_id(subscription)
    }

    /// Detaches a consumer. One that is not attached (any more) is ignored.
    pub fn handle_detach(&mut self, _consumer: ConsumerId, _detach: Detach, _now: Time, _out: &mut Output) {}

    /// Changes how long the later leases of a consumer last. One that is not attached (any more) is ignored.
    pub fn handle_consumer_deadline(&mut self, _consumer: ConsumerId, _ack_deadline: AckDeadline) {}

    /// Acks messages; the outcomes stand in the order of the refs.
    pub fn handle_ack(
        &mut self,
        subscription: &SubscriptionName,
        acks: &[AckRef],
        _now: Time,
        _out: &mut Output,
    ) -> Result<Vec<AckOutcome>, Error> {
        self.subscription_id(subscription)?;
        Ok(vec![AckOutcome::Unknown; acks.len()])
    }

    /// Moves the deadline of leases to `deadline_ms` from now, at most [`crate::ACK_DEADLINE_MS_MAX`]; 0 gives the
    /// messages back as failed. The outcomes stand in the order of the refs.
    pub fn handle_modify(
        &mut self,
        subscription: &SubscriptionName,
        refs: &[AckRef],
        _deadline_ms: u32,
        _now: Time,
        _out: &mut Output,
    ) -> Result<Vec<ModifyOutcome>, Error> {
        self.subscription_id(subscription)?;
        Ok(vec![ModifyOutcome::Stale; refs.len()])
    }

    /// Answers an [`crate::Effect::Load`]: `metas` is what the journal has of the topic within `from..next`, ascending,
    /// and `next`, above `from`, is where a next load would go on. An answer that is no longer waited for is ignored.
    pub fn handle_loaded(
        &mut self,
        _subscription: SubscriptionId,
        _from: Seq,
        _metas: &[(Seq, Meta)],
        _next: Seq,
        _now: Time,
        _out: &mut Output,
    ) {
    }

    /// Answers an [`crate::Effect::Forward`]: the message, as it will stand in the dead-letter topic, is at hand. Gives
    /// the topic and number that it got there, for which a [`Record::Forwarded`] was put out; none when the answer is
    /// no longer waited for, or when the dead-letter topic is gone and the message is to be tried again later.
    pub fn handle_forwarded(
        &mut self,
        _subscription: SubscriptionId,
        _seq: Seq,
        _meta: Meta,
        _now: Time,
        _out: &mut Output,
    ) -> Option<(TopicId, Seq)> {
        None
    }

    /// Ends the leases and delays that are due, at most [`crate::Limits::timeouts_max`] of them.
    pub fn handle_timeout(&mut self, _now: Time, _out: &mut Output) {}
}
