use std::net::SocketAddr;
use std::process::ExitCode;

use orderflow_proto::DESCRIPTORS;
use service_kit::consumer::Consumer;
use service_kit::publish::Publisher;
use service_kit::{CancellationToken, grpc};
use tonic::service::Routes;

pub use service_kit::service::Error;

use crate::config::Config;
use crate::consumer::{INVOICE_JOBS, Jobs};
use crate::domain::Seller;

/// The name of the worker, as it stands in logs.
const NAME: &str = "invoice-worker";

/// A worker, ready to run: its address is bound.
#[derive(Debug)]
pub struct Service {
    config: Config,
    server: grpc::Server,
    jobs: Consumer<Jobs<Publisher>>,
}

/// Runs the worker as a process: logs, stops on SIGTERM and ctrl-c, and tells by the exit code how it ended.
pub async fn run(config: Config) -> ExitCode {
    if let Err(error) = config.validate() {
        eprintln!("{NAME}: {error}");
        return ExitCode::FAILURE;
    }
    let process = config.process.clone();
    service_kit::run(NAME, &process, async |token| Service::open(config).await?.run(token).await).await
}

impl Service {
    /// Checks the configuration whole, and binds the address last. The broker may be down.
    pub async fn open(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let seller = Seller::parse(&config.seller).map_err(|error| Error::Own(Box::new(error)))?;
        let publisher = Publisher::open(&config.broker).await.map_err(|error| Error::Own(Box::new(error)))?;
        let jobs = Consumer::open(&config.broker, INVOICE_JOBS, Jobs::new(seller, publisher)).await?;
        let server = grpc::Server::bind(config.listen, "--listen", "INVOICE_LISTEN").await?;
        Ok(Self { config, server, jobs })
    }

    /// Where the health service listens; tells the port if the configuration left it open.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Runs until the token is cancelled and everything in hand is done, or until something fails for good.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self { config, server, jobs } = self;
        tokio::try_join!(
            async { Ok::<_, Error>(server.serve(Routes::default(), &[], DESCRIPTORS, token.clone()).await?) },
            async { Ok(jobs.run(token.clone()).await?) },
            async {
                config.broker.watch(token.clone()).await;
                Ok(())
            },
        )?;
        Ok(())
    }
}
