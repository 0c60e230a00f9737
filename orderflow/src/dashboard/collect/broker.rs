//! Follows the figures of the broker.

use std::sync::Arc;
use std::time::Duration;

use orderflow_proto::orderflow::broker::v1::WatchStatsRequest;
use orderflow_proto::orderflow::broker::v1::broker_service_client::BrokerServiceClient;
use tokio::time;
use tonic::Status;

use super::super::live::Live;
use super::super::site;
use super::backoff::Backoff;

/// The figures come every second; a broker that is silent for so long is away.
const SILENCE_MAX: Duration = Duration::from_secs(4);
const PROJECT: &str = "projects/orderflow";

pub(super) async fn watch(live: Arc<Live>) {
    let Ok(channel) = site::channel(&live.site.addresses.broker) else { return };
    let client = BrokerServiceClient::new(channel);
    let mut backoff = Backoff::default();
    loop {
        let ended = follow(&live, client.clone(), &mut backoff).await;
        tracing::debug!(reason = ended.err().map(|status| status.to_string()), "the broker's figures have ended");
        live.lose_broker();
        backoff.pause().await;
    }
}

async fn follow(
    live: &Live,
    mut client: BrokerServiceClient<tonic::transport::Channel>,
    backoff: &mut Backoff,
) -> Result<(), Status> {
    let request = WatchStatsRequest { project: PROJECT.into(), interval: None };
    let mut figures = client.watch_stats(request).await?.into_inner();
    let silent = |_| Status::deadline_exceeded("no figures in time");
    while let Some(next) = time::timeout(SILENCE_MAX, figures.message()).await.map_err(silent)?? {
        live.set_stats(next.stats.unwrap_or_default());
        backoff.reset();
    }
    Ok(())
}
