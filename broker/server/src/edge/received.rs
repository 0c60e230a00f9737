//! Leases as they go out on the wire.

use orderflow_proto::google::pubsub::v1 as pb;

use super::parse::timestamp;
use crate::engine::Lease;

pub(super) fn message(lease: Lease) -> pb::ReceivedMessage {
    let message = pb::PubsubMessage {
        data: lease.message.data,
        attributes: lease.message.attributes,
        message_id: lease.message_id.0,
        publish_time: Some(timestamp(lease.publish_time_ms)),
        ordering_key: lease.message.ordering_key,
    };
    // 0 says that attempts are not counted for anybody to see.
    let delivery_attempt = lease.attempt.map_or(0, |attempt| attempt.try_into().unwrap_or(i32::MAX));
    pb::ReceivedMessage { ack_id: lease.ack_id.0, message: Some(message), delivery_attempt }
}
