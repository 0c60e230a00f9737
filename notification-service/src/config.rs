use std::net::SocketAddr;

use service_kit::ProcessConfig;
use service_kit::broker::BrokerConfig;
use service_kit::config::{self, Check};

use crate::email::EmailConfig;

/// What notification-service can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Address that the gRPC server listens on
    #[arg(
        long,
        env = "NOTIFICATION_LISTEN",
        default_value = "127.0.0.1:50053",
        value_parser = config::named::<SocketAddr>("NOTIFICATION_LISTEN")
    )]
    pub listen: SocketAddr,
    /// The service's own database: sqlite://path/to/file, which is made if it is not there, or
    /// postgres://user@host/database
    #[arg(
        long,
        env = "NOTIFICATION_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://data/notification-service.db",
        value_name = "URL"
    )]
    pub database_url: String,
    /// How customers get e-mail
    #[command(flatten)]
    pub email: EmailConfig,
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
        check.database_url("--database-url", "NOTIFICATION_DATABASE_URL", &self.database_url);
        self.email.check(&mut check);
        self.broker.check(&mut check);
        self.process.check(&mut check);
        check.finish()
    }
}
