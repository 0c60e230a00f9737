use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use orderflow_proto::DESCRIPTORS;
use orderflow_proto::orderflow::order::v1::order_service_server::{OrderServiceServer, SERVICE_NAME};
use service_kit::clock::now_us;
use service_kit::consumer::Consumer;
use service_kit::db::{self, Database};
use service_kit::outbox::Relay;
use service_kit::service::{Frame, Served};
use service_kit::{CancellationToken, grpc};
use tonic::service::{Routes, RoutesBuilder};

pub use service_kit::service::Error;

use crate::app::{App, Sweeper, Terms};
use crate::config::Config;
use crate::consumer::{CONFIG, PaymentEvents};
use crate::grpc::Rpc;
use crate::peers::Peers;
use crate::store::{self, MIGRATIONS, Store};

/// The name of the service, as it stands in logs.
const NAME: &str = "order-service";

/// order-service, ready to run: its database is open and its address bound.
#[derive(Debug)]
pub struct Service {
    frame: Frame,
    app: App<Store>,
    peers: Peers,
    consumer: Consumer<PaymentEvents<Store>>,
}

/// Runs the service as a process: logs, stops on SIGTERM and ctrl-c, and tells by the exit code how it ended.
pub async fn run(config: Config) -> ExitCode {
    if let Err(error) = config.validate() {
        eprintln!("{NAME}: {error}");
        return ExitCode::FAILURE;
    }
    let process = config.process.clone();
    service_kit::run(NAME, &process, async |token| Service::open(config).await?.run(token).await).await
}

impl Service {
    /// Checks the configuration whole, opens the database, and binds the address last. The broker may be down.
    pub async fn open(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let database = Database::open(&config.database_url, MIGRATIONS).await;
        let database = database.map_err(db::Error::of_setting("--database-url", "ORDER_DATABASE_URL"))?;
        let timeline_timeout = Duration::from_millis(config.timeline_timeout_ms);
        let peers = Peers::new(&config.payment_url, &config.notification_url, timeline_timeout);
        let peers = peers.map_err(|error| Error::Own(error.into()))?;
        let app = App::new(Store::new(database.clone()), terms(&config), now_us);
        let relay = Relay::open(database.clone(), &config.broker).await?.on_taken(store::queued);
        let consumer = Consumer::open(&config.broker, CONFIG, PaymentEvents::new(app.clone())).await?;
        let server = grpc::Server::bind(config.listen, "--listen", "ORDER_LISTEN").await?;
        let frame = Frame { database, broker: config.broker, relay: Some(relay), server };
        Ok(Self { frame, app, peers, consumer })
    }

    /// Where the gRPC server listens; tells the port if the configuration left it open.
    pub fn local_addr(&self) -> SocketAddr {
        self.frame.server.local_addr()
    }

    /// Runs until the token is cancelled and everything in hand is done, or until something fails for good.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self { frame, app, peers, consumer } = self;
        let sweeper = Sweeper::new(app.clone());
        let served = Served { routes: routes(app, peers, &token), name: SERVICE_NAME, descriptors: DESCRIPTORS };
        let working = async {
            let sweeping = async {
                sweeper.run(token.clone()).await;
                Ok(())
            };
            tokio::try_join!(consumer.run(token.clone()), sweeping).map(drop)
        };
        frame.run(served, working, token.clone()).await
    }
}

fn terms(config: &Config) -> Terms {
    let payment_deadline_us = config.payment_deadline.map(|deadline| i64::try_from(deadline.as_micros()));
    Terms {
        payment_timeout: Duration::from_millis(config.payment_timeout_ms),
        payment_deadline_us: payment_deadline_us.map(|us| us.unwrap_or(i64::MAX)),
    }
}

fn routes(app: App<Store>, peers: Peers, token: &CancellationToken) -> Routes {
    let mut routes = RoutesBuilder::default();
    routes.add_service(OrderServiceServer::new(Rpc::new(app, peers, token.clone())));
    routes.routes()
}
