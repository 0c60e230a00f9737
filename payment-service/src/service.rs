use std::net::SocketAddr;
use std::process::ExitCode;

use orderflow_proto::DESCRIPTORS;
use orderflow_proto::orderflow::payment::v1::payment_service_server::{PaymentServiceServer, SERVICE_NAME};
use service_kit::clock::now_us;
use service_kit::consumer::Consumer;
use service_kit::db::{self, Database};
use service_kit::outbox::Relay;
use service_kit::service::{Frame, Served};
use service_kit::{CancellationToken, grpc};
use tokio_util::task::TaskTracker;
use tonic::service::{Routes, RoutesBuilder};

pub use service_kit::service::Error;

use crate::acquirer::PatientAcquirer;
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
    frame: Frame,
    app: App<Store, PatientAcquirer>,
    consumer: Consumer<OrderEvents<Store, PatientAcquirer>>,
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
        let database = database.map_err(db::Error::of_setting("--database-url", "PAYMENT_DATABASE_URL"))?;
        let acquirer = PatientAcquirer::new(&config.acquirer_url, config.acquirer_timeout())
            .map_err(|error| Error::Own(error.into()))?;
        let app = App::new(Store::new(database.clone()), acquirer, now_us);
        let relay = Relay::open(database.clone(), &config.broker).await?;
        let consumer = Consumer::open(&config.broker, CONFIG, OrderEvents::new(app.clone())).await?;
        let server = grpc::Server::bind(config.listen, "--listen", "PAYMENT_LISTEN").await?;
        let frame = Frame { database, broker: config.broker, relay: Some(relay), server };
        Ok(Self { frame, app, consumer })
    }

    /// Where the gRPC server listens; tells the port if the configuration left it open.
    pub fn local_addr(&self) -> SocketAddr {
        self.frame.server.local_addr()
    }

    /// Runs until the token is cancelled and everything in hand is done, or until something fails for good.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self { frame, app, consumer } = self;
        let tasks = TaskTracker::new();
        let served = Served { routes: routes(app, tasks.clone()), name: SERVICE_NAME, descriptors: DESCRIPTORS };
        let stopping = token.clone();
        let working = async move {
            consumer.run(stopping).await?;
            // A charge whose caller has gone away is still written down.
            tasks.close();
            tasks.wait().await;
            Ok(())
        };
        frame.run(served, working, token).await
    }
}

fn routes(app: App<Store, PatientAcquirer>, tasks: TaskTracker) -> Routes {
    let mut routes = RoutesBuilder::default();
    routes.add_service(PaymentServiceServer::new(Rpc::new(app, tasks)));
    routes.routes()
}
