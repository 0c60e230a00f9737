//! `orderflow dashboard`: the page for a stack that others run.

use std::net::SocketAddr;
use std::path::Path;

use service_kit::{CancellationToken, ProcessConfig};

use super::site::{Commands, Site, Watched};
use super::{Door, Error, Listen, usual_address};
use crate::part::Part;
use crate::up;
use crate::whereabouts::{Told, Whereabouts};

/// What `orderflow dashboard` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where the page is. Whoever reaches it can place orders, and spoil messages and the acquirer's mood
    #[arg(long, env = "ORDERFLOW_DASHBOARD_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS", value_parser = listen)]
    listen: SocketAddr,
    /// Further names under which browsers call the page, beside addresses and localhost
    #[arg(long, env = "ORDERFLOW_DASHBOARD_HOSTS", value_name = "NAME", value_delimiter = ',')]
    host: Vec<String>,
    /// Whom to ask; by default as the running stack says, else at the usual addresses
    #[command(flatten)]
    told: Told,
    /// invoice-worker
    #[arg(long, env = "INVOICE_URL")]
    invoice_worker: Option<String>,
    /// Where single instances are, so that each is watched, such as payment-service-2=http://host:50052
    #[arg(long = "instance", env = "ORDERFLOW_DASHBOARD_INSTANCES", value_name = "NAME=URL", value_delimiter = ',')]
    instances: Vec<Watched>,
    /// Which commands kill and start parts, for people to type
    #[arg(long, env = "ORDERFLOW_DASHBOARD_COMMANDS", value_enum, default_value_t)]
    commands: Style,
    /// Logs and stopping
    #[command(flatten)]
    pub(crate) process: ProcessConfig,
}

/// Who runs the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Style {
    /// `orderflow up`.
    #[default]
    Runner,
    /// docker-compose.
    Compose,
}

/// This command has nothing but its page, so that there is no switching it off.
fn listen(text: &str) -> Result<SocketAddr, String> {
    match text.parse() {
        Ok(Listen::On(address)) => Ok(address),
        Ok(Listen::Off) => Err(format!(
            "`off` is for `orderflow up`; `orderflow dashboard` is the page itself: don't run it, or give it an address \
             such as `--listen {}`",
            usual_address()
        )),
        Err(_) => Err(format!("`{text}` is no address such as {}", usual_address())),
    }
}

/// Serves the page until the token is cancelled.
pub(crate) async fn run(
    config: Config,
    whereabouts: Whereabouts,
    data_dir: &Path,
    token: CancellationToken,
) -> Result<(), Error> {
    let door = Door::open(config.listen, "--listen (ORDERFLOW_DASHBOARD_LISTEN)", "").await?;
    let invoice_worker = whereabouts.url(Part::InvoiceWorker, config.invoice_worker);
    let commands = match config.commands {
        Style::Runner => Commands::Runner(up::program(data_dir)),
        Style::Compose => Commands::Compose,
    };
    tracing::info!(address = %door.address(), "the page is served");
    let site = Site::elsewhere(whereabouts.addresses(config.told), invoice_worker, config.instances, commands)?;
    door.serve(site, config.host, token).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_switched_off_is_told_what_to_do_instead() {
        assert_eq!(listen("127.0.0.1:8081"), Ok(SocketAddr::from(([127, 0, 0, 1], 8081))));
        let off = listen("off").unwrap_err();
        assert!(off.contains("don't run it") && off.contains("--listen 127.0.0.1:8080"), "{off}");
        let wrong = listen("localhost").unwrap_err();
        assert!(wrong.contains("`localhost` is no address"), "{wrong}");
    }
}
