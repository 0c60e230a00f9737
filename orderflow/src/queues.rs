//! `orderflow queues`: how every queue of the broker stands.

use std::fmt::Write;

use orderflow_proto::orderflow::broker::v1::broker_service_client::BrokerServiceClient;
use orderflow_proto::orderflow::broker::v1::{GetStatsRequest, SubscriptionStats};

use crate::audit::{Error, channel};
use crate::part::Part;

/// What the subscriptions begin with by which pages listen: no queues, since nobody's work waits in them.
pub(crate) const LISTENER: &str = "dashboard-";

/// Asks the broker at `http://HOST:PORT` for every queue.
pub async fn ask(broker: &str) -> Result<Vec<SubscriptionStats>, Error> {
    let reply = BrokerServiceClient::new(channel(broker)?).get_stats(GetStatsRequest::default()).await;
    let reply = reply.map_err(Error::grpc("broker", broker))?;
    let mut queues = reply.into_inner().subscriptions;
    queues.retain(|queue| !queue.subscription.contains(&format!("/{LISTENER}")));
    Ok(queues)
}

/// How many messages wait in the queues of the suite, by the name of the queue.
pub async fn waiting(broker: &str) -> Result<Vec<(String, u64)>, Error> {
    let named = ask(broker).await?.into_iter().filter_map(|queue| {
        let name = queue.subscription.rsplit('/').next()?;
        let of_the_suite = Part::ALL.iter().any(|part| name.starts_with(&format!("{}.", part.name())));
        of_the_suite.then(|| (name.to_owned(), queue.backlog_messages))
    });
    Ok(named.collect())
}

/// One line for each subscription, its last name first, so that scripts can pick columns.
pub fn table(subscriptions: &[SubscriptionStats]) -> String {
    let mut text = format!(
        "{:<38}{:>9}{:>13}{:>9}{:>11}{:>14}",
        "SUBSCRIPTION", "BACKLOG", "OUTSTANDING", "DELAYED", "CONSUMERS", "DEAD-LETTERED"
    );
    for queue in subscriptions {
        let name = queue.subscription.rsplit('/').next().unwrap_or_default();
        let SubscriptionStats {
            backlog_messages,
            outstanding_messages,
            delayed_messages,
            consumers,
            dead_lettered_messages,
            ..
        } = queue;
        let _ = write!(
            text,
            "\n{name:<38}{backlog_messages:>9}{outstanding_messages:>13}{delayed_messages:>9}{consumers:>11}\
             {dead_lettered_messages:>14}"
        );
    }
    text
}
