use std::net::SocketAddr;

use service_kit::ProcessConfig;
use service_kit::broker::BrokerConfig;
use service_kit::config::{self, Check};

use crate::domain::Seller;

/// What invoice-worker can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Address that answers whether the worker is well; each worker of a machine needs its own, port 0 takes a free one
    #[arg(
        long,
        env = "INVOICE_LISTEN",
        default_value = "127.0.0.1:50054",
        value_parser = config::named::<SocketAddr>("INVOICE_LISTEN")
    )]
    pub listen: SocketAddr,
    /// Who sells: the lines of the invoice's head, with `|` between them. The first one is the name
    #[arg(
        long,
        env = "INVOICE_SELLER",
        default_value = "Orderflow Demo Shop|1 Queue Street|12345 Example Town|VAT ID EX 123 456 789",
        value_name = "LINES"
    )]
    pub seller: String,
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
        if let Err(error) = Seller::parse(&self.seller) {
            check.problem("--seller", "INVOICE_SELLER", error);
        }
        self.broker.check(&mut check);
        self.process.check(&mut check);
        check.finish()
    }
}
