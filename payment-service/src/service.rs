use std::net::SocketAddr;
use std::process::ExitCode;

use orderflow_proto::DESCRIPTORS;
use orderflow_proto::orderflow::payment::v1::payment_service_server::{PaymentServiceServer, SERVICE_NAME};
use service_kit::consumer::Consumer;
use service_kit::db::Database;
use service_kit::outbox::Relay;
use service_kit::{CancellationToken, config, consumer, db, grpc, inbox, outbox};
use tonic::service::{Routes, RoutesBuilder};

use crate::acquirer::{self, PatientAcquirer};
use crate::app::App;
use crate::config::Config;
use crate::consumer::{CONFIG, OrderEvents};
use crate::grpc::Rpc;
use crate::store::{MIGRATIONS, Store};

/// The name of the service, as it stands in logs.
const NAME: &str = "payment-service";

/// payment-service, ready to run: its database is open and its address bound.
#[derive(Debug)]
pub struct Service {
    database: Database,
    app: App<Store, PatientAcquirer>,
    relay: Relay,
    consumer: Consumer<OrderEvents<Store, PatientAcquirer>>,
    server: grpc::Server,
}

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The acquirer cannot be asked.
    #[error(transparent)]
    Acquirer(#[from] acquirer::Error),
    /// The database is unfit.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// Events cannot be published.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    /// Messages cannot be consumed.
    #[error(transparent)]
    Consumer(#[from] consumer::Error),
    /// The gRPC server does not serve.
    #[error(transparent)]
    Server(#[from] grpc::Error),
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
        let database = Database::open(&config.database_url, MIGRATIONS).await?;
        let acquirer = PatientAcquirer::new(&config.acquirer_url, config.acquirer_timeout())?;
        let app = App::new(Store::new(database.clone()), acquirer);
        let relay = Relay::open(database.clone(), &config.broker).await?;
        let consumer = Consumer::open(&config.broker, CONFIG, OrderEvents::new(app.clone())).await?;
        let server = grpc::Server::bind(config.listen, "--listen", "PAYMENT_LISTEN").await?;
        Ok(Self { database, app, relay, consumer, server })
    }

    /// Where the gRPC server listens; tells the port if the configuration left it open.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Runs until the token is cancelled and everything in hand is done, or until something fails for good.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self { database, app, relay, consumer, server } = self;
        let routes = routes(app);
        // The relay goes last, so that the events of the last changes still leave.
        let relay_token = CancellationToken::new();
        let keep_small = async {
            inbox::keep_small(database, token.clone()).await;
            Ok::<_, Error>(())
        };
        let work = async {
            tokio::try_join!(
                async { Ok::<_, Error>(server.serve(routes, &[SERVICE_NAME], DESCRIPTORS, token.clone()).await?) },
                async { Ok(consumer.run(token.clone()).await?) },
                keep_small,
            )?;
            relay_token.cancel();
            Ok::<_, Error>(())
        };
        tokio::try_join!(work, async { Ok(relay.run(relay_token.clone()).await?) })?;
        Ok(())
    }
}

fn routes(app: App<Store, PatientAcquirer>) -> Routes {
    let mut routes = RoutesBuilder::default();
    routes.add_service(PaymentServiceServer::new(Rpc::new(app)));
    routes.routes()
}
