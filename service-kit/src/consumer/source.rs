//! Where messages come from: a stream that opens itself again, on a connection that can be cut.

use std::time::Duration;

use google_cloud_gax::error::rpc::Code;
use google_cloud_pubsub::client::Subscriber;
use google_cloud_pubsub::model::Message;
use google_cloud_pubsub::subscriber::MessageStream;
use google_cloud_pubsub::subscriber::handler::Handler as Lease;
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

use super::{Error, OUTSTANDING_MESSAGES_MAX};
use crate::broker::{BrokerConfig, reason};

/// How long the client may try to open a stream before it starts over, in milliseconds.
///
/// The client's pauses between its attempts grow to a minute. Starting over begins with the shortest, so that a broker
/// that is back is found within this time. A stream that is open loses nothing by it: the wait for its next message
/// can be given up and taken up again.
const RECONNECT_MS: u64 = 1_500;

/// By how much a lease is extended, in milliseconds: the least that the protocol allows, because the leases of a
/// process that froze come back after it.
const LEASE_MS: u64 = 10_000;

/// How long a message may wait for something that is down, in milliseconds: seven days, longer than any outage that a
/// message should survive without an operator. Beyond it the lease ends and an attempt is counted.
const LEASE_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// How many bytes the broker may have out to one consumer.
const OUTSTANDING_BYTES_MAX: i64 = 32 * 1024 * 1024;

/// The stream of one subscription.
///
/// The client nacks what it has received and nobody has taken when it is shut down, and a nack counts as a failed
/// attempt. So it is not shut down: its tasks have a runtime of their own, which is dropped with the connection in
/// it. The broker gives the leases of a lost connection back at once, and counts nothing.
#[derive(Debug)]
pub(super) struct Source {
    subscription: String,
    client: Subscriber,
    stream: MessageStream,
    runtime: Option<Runtime>,
}

impl Source {
    pub(super) async fn open(broker: &BrokerConfig, subscription: String) -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("subscriber").enable_all().build();
        let runtime = runtime.map_err(Error::Thread)?;
        let broker = broker.clone();
        let client = match runtime.spawn(async move { broker.subscriber().await }).await {
            Ok(client) => client?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let stream = stream(&runtime, &client, &subscription);
        Ok(Self { subscription, client, stream, runtime: Some(runtime) })
    }

    pub(super) fn subscription(&self) -> &str {
        &self.subscription
    }

    /// The next message with its lease, or `None` after a while without one; and the source.
    ///
    /// Given up and called again, it loses nothing; but a stream that is just being opened is opened anew.
    pub(super) async fn next(mut self) -> (Self, Result<Option<(Message, Lease)>, Error>) {
        let wait = Duration::from_millis(RECONNECT_MS);
        let next = match tokio::time::timeout(wait, self.stream.next()).await {
            Ok(Some(Ok(delivery))) => Ok(Some(delivery)),
            Ok(Some(Err(error))) => match self.judge(error) {
                Ok(()) => {
                    self.start_over();
                    tokio::time::sleep(wait).await;
                    Ok(None)
                }
                Err(error) => Err(error),
            },
            Ok(None) => {
                self.start_over();
                Ok(None)
            }
            Err(_) => Ok(None),
        };
        (self, next)
    }

    fn start_over(&mut self) {
        if let Some(runtime) = &self.runtime {
            self.stream = stream(runtime, &self.client, &self.subscription);
        }
    }

    /// What the client does not try again is either final, or worth a new stream.
    fn judge(&self, error: google_cloud_pubsub::Error) -> Result<(), Error> {
        let subscription = self.subscription.clone();
        match error.status().map(|status| status.code) {
            Some(Code::NotFound) => Err(Error::SubscriptionMissing { subscription }),
            Some(
                Code::InvalidArgument
                | Code::FailedPrecondition
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented,
            ) => Err(Error::Refused { subscription, cause: reason(&error) }),
            _ => {
                warn!(subscription, error = reason(&error), "the stream of messages broke; it is opened again");
                Ok(())
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for inside another one.
            runtime.shutdown_background();
        }
    }
}

fn stream(runtime: &Runtime, client: &Subscriber, subscription: &str) -> MessageStream {
    let _inside = runtime.enter();
    client
        .subscribe(subscription)
        .set_max_lease(Duration::from_millis(LEASE_MS_MAX))
        .set_max_lease_extension(Duration::from_millis(LEASE_MS))
        .set_max_outstanding_messages(i64::from(OUTSTANDING_MESSAGES_MAX))
        .set_max_outstanding_bytes(OUTSTANDING_BYTES_MAX)
        .build()
}
