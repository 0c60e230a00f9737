use std::net::SocketAddr;
use std::process::ExitCode;

use orderflow_proto::DESCRIPTORS;
use orderflow_proto::orderflow::notification::v1::notification_service_server::{
    NotificationServiceServer, SERVICE_NAME,
};
use service_kit::clock::now_us;
use service_kit::consumer::Consumer;
use service_kit::db::{self, Database};
use service_kit::service::{Frame, Served};
use service_kit::{CancellationToken, grpc};
use tonic::service::{Routes, RoutesBuilder};

pub use service_kit::service::Error;

use crate::app::App;
use crate::config::Config;
use crate::consumer::{INVOICES, Invoices, ORDER_EVENTS, OrderEvents, PAYMENT_EVENTS, PaymentEvents, handlers};
use crate::email::Sender;
use crate::grpc::Rpc;
use crate::store::{MIGRATIONS, Store};

/// The name of the service, as it stands in logs.
const NAME: &str = "notification-service";

/// notification-service, ready to run: its database is open and its address bound.
#[derive(Debug)]
pub struct Service {
    frame: Frame,
    app: App<Store>,
    order_events: Consumer<OrderEvents<Store>>,
    payment_events: Consumer<PaymentEvents<Store>>,
    invoices: Consumer<Invoices<Store>>,
    sender: Option<Sender<Store>>,
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
        let database = database.map_err(db::Error::of_setting("--database-url", "NOTIFICATION_DATABASE_URL"))?;
        let transport = config.email.transport()?;
        let app = App::new(Store::new(database.clone(), transport.is_some()), now_us);
        let sender = transport.map(|transport| Sender::new(app.clone(), transport));
        let (orders, payments, invoices) = handlers(&app);
        let order_events = Consumer::open(&config.broker, ORDER_EVENTS, orders).await?;
        let payment_events = Consumer::open(&config.broker, PAYMENT_EVENTS, payments).await?;
        let invoices = Consumer::open(&config.broker, INVOICES, invoices).await?;
        let server = grpc::Server::bind(config.listen, "--listen", "NOTIFICATION_LISTEN").await?;
        let frame = Frame { database, broker: config.broker, relay: None, server };
        Ok(Self { frame, app, order_events, payment_events, invoices, sender })
    }

    /// Where the gRPC server listens; tells the port if the configuration left it open.
    pub fn local_addr(&self) -> SocketAddr {
        self.frame.server.local_addr()
    }

    /// Runs until the token is cancelled and everything in hand is done, or until something fails for good.
    pub async fn run(self, token: CancellationToken) -> Result<(), Error> {
        let Self { frame, app, order_events, payment_events, invoices, sender } = self;
        let served = Served { routes: routes(app, &token), name: SERVICE_NAME, descriptors: DESCRIPTORS };
        // On the heap: side by side, the futures of the consumers are larger than a stack likes.
        let sending = Box::pin(async {
            if let Some(sender) = sender {
                sender.run(token.clone()).await;
            }
            Ok(())
        });
        let consuming = async {
            tokio::try_join!(
                Box::pin(order_events.run(token.clone())),
                Box::pin(payment_events.run(token.clone())),
                Box::pin(invoices.run(token.clone())),
                sending,
            )
            .map(drop)
        };
        Box::pin(frame.run(served, Box::pin(consuming), token.clone())).await
    }
}

fn routes(app: App<Store>, token: &CancellationToken) -> Routes {
    let mut routes = RoutesBuilder::default();
    routes.add_service(NotificationServiceServer::new(Rpc::new(app, token.clone())));
    routes.routes()
}
