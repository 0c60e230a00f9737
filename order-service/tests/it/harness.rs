use std::future::Future;
use std::time::Duration;

use clap::Parser;
use order_service::{Config, Error, Service};
use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;
use orderflow_proto::orderflow::order::v1::{ListOrdersRequest, Order, OrderLine, PlaceOrderRequest};
use orderflow_proto::orderflow::r#type::v1::Money;
use service_kit::CancellationToken;
use sqlx::{AnyConnection, Connection as _};
use test_database::TestDatabase;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(20);

/// A service that runs on its own database.
pub(crate) struct Running {
    pub(crate) client: OrderServiceClient<Channel>,
    pub(crate) token: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
    test: TestDatabase,
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    config: Config,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_on(TestDatabase::new()).await
    }

    async fn start_on(test: TestDatabase) -> Self {
        let service = Service::open(config(&["--database-url", test.url()])).await.unwrap();
        let address = service.local_addr();
        let token = CancellationToken::new();
        let task = tokio::spawn(service.run(token.clone()));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let client = OrderServiceClient::new(endpoint.connect().await.unwrap());
        Self { client, token, task, test }
    }

    /// Ends it as a crash does, with nothing finished, and starts it again on what is on disk.
    pub(crate) async fn crash_and_restart(self) -> Self {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        Self::start_on(self.test).await
    }

    /// Does something to the database behind the service's back.
    pub(crate) async fn sabotage(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut AnyConnection::connect(self.test.url()).await.unwrap()).await.unwrap();
    }

    /// Waits for the end of a service that was told to stop, or cannot go on.
    pub(crate) async fn stopped(self) -> Result<(), Error> {
        within(self.task).await.unwrap()
    }

    /// Everything that it holds.
    pub(crate) async fn orders(&mut self) -> Vec<Order> {
        self.client.list_orders(ListOrdersRequest::default()).await.unwrap().into_inner().orders
    }
}

/// A configuration with a free port and a broker that nobody runs.
pub(crate) fn config(flags: &[&str]) -> Config {
    // Port 1 is reserved: nobody listens there.
    let nobody = "http://127.0.0.1:1";
    let own = ["order-service", "--listen", "127.0.0.1:0", "--broker", nobody];
    let others = ["--payment-url", nobody, "--notification-url", nobody];
    let all = own.iter().chain(&others).chain(flags);
    Args::try_parse_from(all).unwrap().config
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened in time")
}

pub(crate) fn line(sku: &str, quantity: u32, currency_code: &str, amount_minor: i64) -> OrderLine {
    let unit_price = Some(Money { currency_code: currency_code.to_owned(), amount_minor });
    OrderLine { sku: sku.to_owned(), quantity, unit_price }
}

/// A good request for an order over 12.00 EUR.
pub(crate) fn request(key: &str) -> PlaceOrderRequest {
    PlaceOrderRequest {
        idempotency_key: key.to_owned(),
        customer_id: "ada".to_owned(),
        lines: vec![line("tea", 2, "EUR", 500), line("cup", 1, "EUR", 200)],
        payment_token: String::new(),
        ..Default::default()
    }
}
