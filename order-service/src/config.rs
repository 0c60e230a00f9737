use std::net::SocketAddr;
use std::time::Duration;

use service_kit::ProcessConfig;
use service_kit::broker::BrokerConfig;
use service_kit::config::{self, Check};

use crate::domain::{PAYMENT_DEADLINE_US_MAX, PAYMENT_DEADLINE_US_MIN};

/// The longest time that a synchronous checkout may wait for payment-service, in milliseconds.
pub(crate) const PAYMENT_TIMEOUT_MS_MAX: u64 = 60_000;
/// The longest time that a timeline may wait for other services, in milliseconds.
pub(crate) const TIMELINE_TIMEOUT_MS_MAX: u64 = 10_000;

/// What order-service can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Address that the gRPC server listens on
    #[arg(
        long,
        env = "ORDER_LISTEN",
        default_value = "127.0.0.1:50051",
        value_parser = config::named::<SocketAddr>("ORDER_LISTEN")
    )]
    pub listen: SocketAddr,
    /// The service's own database: sqlite://path/to/file, which is made if it is not there, or
    /// postgres://user@host/database
    #[arg(
        long,
        env = "ORDER_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://data/order-service.db",
        value_name = "URL"
    )]
    pub database_url: String,
    /// Where payment-service is: it charges synchronous checkouts, and knows a part of each timeline
    #[arg(long, env = "ORDER_PAYMENT_URL", default_value = "http://127.0.0.1:50052", value_name = "URL")]
    pub payment_url: String,
    /// Where notification-service is: it knows a part of each timeline
    #[arg(long, env = "ORDER_NOTIFICATION_URL", default_value = "http://127.0.0.1:50053", value_name = "URL")]
    pub notification_url: String,
    /// How long a synchronous checkout waits for payment-service
    #[arg(
        long,
        env = "ORDER_PAYMENT_TIMEOUT_MS",
        default_value_t = 3_000,
        value_name = "MS",
        value_parser = config::named::<u64>("ORDER_PAYMENT_TIMEOUT_MS")
    )]
    pub payment_timeout_ms: u64,
    /// How long a timeline waits for payment-service and notification-service
    #[arg(
        long,
        env = "ORDER_TIMELINE_TIMEOUT_MS",
        default_value_t = 500,
        value_name = "MS",
        value_parser = config::named::<u64>("ORDER_TIMELINE_TIMEOUT_MS")
    )]
    pub timeline_timeout_ms: u64,
    /// How long an order may wait for its payment before it is cancelled, when its request does not say: 15m, for
    /// example; for ever by default
    #[arg(
        long,
        env = "ORDER_PAYMENT_DEADLINE",
        value_name = "DURATION",
        value_parser = config::named::<humantime::Duration>("ORDER_PAYMENT_DEADLINE")
    )]
    pub payment_deadline: Option<humantime::Duration>,
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
        check.database_url("--database-url", "ORDER_DATABASE_URL", &self.database_url);
        check.http_url("--payment-url", "ORDER_PAYMENT_URL", &self.payment_url);
        check.http_url("--notification-url", "ORDER_NOTIFICATION_URL", &self.notification_url);
        let (flag, variable) = ("--payment-timeout-ms", "ORDER_PAYMENT_TIMEOUT_MS");
        check.range(flag, variable, self.payment_timeout_ms, 1, PAYMENT_TIMEOUT_MS_MAX);
        let (flag, variable) = ("--timeline-timeout-ms", "ORDER_TIMELINE_TIMEOUT_MS");
        check.range(flag, variable, self.timeline_timeout_ms, 1, TIMELINE_TIMEOUT_MS_MAX);
        if let Some(deadline) = self.payment_deadline {
            let span = |us: i64| humantime::Duration::from(Duration::from_micros(us.unsigned_abs()));
            let (least, most) = (span(PAYMENT_DEADLINE_US_MIN), span(PAYMENT_DEADLINE_US_MAX));
            check.range("--payment-deadline", "ORDER_PAYMENT_DEADLINE", deadline, least, most);
        }
        self.broker.check(&mut check);
        self.process.check(&mut check);
        check.finish()
    }
}
