//! `broker health`.

use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::remote::endpoint;
use crate::Error;

/// How long the health check waits for its answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Which broker is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct Health {
    /// Where the broker serves
    #[arg(long, env = "BROKER_ADDRESS", default_value = "http://127.0.0.1:8085")]
    address: String,
}

impl Health {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let Self { address } = self;
        let unhealthy = |why: String| Error::Unhealthy { address: address.clone(), why };
        let endpoint = endpoint(&address)
            .map_err(|error| unhealthy(error.to_string()))?
            .connect_timeout(HEALTH_TIMEOUT)
            .timeout(HEALTH_TIMEOUT);
        let channel = endpoint.connect().await.map_err(|_| unhealthy("nobody answers there".to_owned()))?;
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        let status = answer.map_err(|status| unhealthy(status.message().to_owned()))?.into_inner().status();
        if status == ServingStatus::Serving {
            Ok(())
        } else {
            Err(unhealthy(format!("it says {}", status.as_str_name())))
        }
    }
}
