use std::net::SocketAddr;
use std::time::Duration;

use service_kit::ProcessConfig;
use service_kit::broker::BrokerConfig;
use service_kit::config::{self, Check};

/// The shortest time that the acquirer can be given for an answer, in milliseconds.
const ACQUIRER_TIMEOUT_MS_MIN: u64 = 10;

/// The longest time that the acquirer can be given for an answer, in milliseconds.
const ACQUIRER_TIMEOUT_MS_MAX: u64 = 60_000;

/// What payment-service can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Address that the gRPC server listens on
    #[arg(
        long,
        env = "PAYMENT_LISTEN",
        default_value = "127.0.0.1:50052",
        value_parser = config::named::<SocketAddr>("PAYMENT_LISTEN")
    )]
    pub listen: SocketAddr,
    /// The service's own database: sqlite://path/to/file, which is made if it is not there, or
    /// postgres://user@host/database
    #[arg(
        long,
        env = "PAYMENT_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://data/payment-service.db",
        value_name = "URL"
    )]
    pub database_url: String,
    /// The acquirer that charges cards
    #[arg(
        long = "acquirer",
        env = "PAYMENT_ACQUIRER_URL",
        default_value = "http://127.0.0.1:8070",
        value_name = "URL"
    )]
    pub acquirer_url: String,
    /// How long the acquirer may take for an answer, in milliseconds
    #[arg(
        long,
        env = "PAYMENT_ACQUIRER_TIMEOUT_MS",
        default_value = "5000",
        value_parser = config::named::<u64>("PAYMENT_ACQUIRER_TIMEOUT_MS")
    )]
    pub acquirer_timeout_ms: u64,
    /// Where the broker is
    #[command(flatten)]
    pub broker: BrokerConfig,
    /// How the process logs and stops
    #[command(flatten)]
    pub process: ProcessConfig,
}

impl Config {
    /// Checks everything, so that one run names all that is wrong.
    pub fn validate(&self) -> Result<(), config::Error> {
        let mut check = Check::new();
        check.database_url("--database-url", "PAYMENT_DATABASE_URL", &self.database_url);
        check.http_url("--acquirer", "PAYMENT_ACQUIRER_URL", &self.acquirer_url);
        let (least, most) = (ACQUIRER_TIMEOUT_MS_MIN, ACQUIRER_TIMEOUT_MS_MAX);
        check.range("--acquirer-timeout-ms", "PAYMENT_ACQUIRER_TIMEOUT_MS", self.acquirer_timeout_ms, least, most);
        self.broker.check(&mut check);
        self.process.check(&mut check);
        check.finish()
    }

    pub(crate) fn acquirer_timeout(&self) -> Duration {
        Duration::from_millis(self.acquirer_timeout_ms)
    }
}
