use std::time::Duration;

use clap::Parser;
use orderflow_proto::orderflow::payment::v1::payment_service_client::PaymentServiceClient;
use payment_service::{Config, Error, Service};
use service_kit::CancellationToken;
use service_kit::db::{self, Database};
use test_database::TestDatabase;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(20);

/// A service that runs on its own database.
pub(crate) struct Running {
    pub(crate) client: PaymentServiceClient<Channel>,
    pub(crate) token: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
    _test: TestDatabase,
}

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    config: Config,
}

impl Running {
    /// Starts on a database in which version 1 of the tables already holds these payments.
    pub(crate) async fn start_with(payments: &[Stored]) -> Self {
        let test = TestDatabase::new();
        // The tables of version 1, which the service then brings up to date.
        store(test.url(), payments).await;
        let service = Service::open(config(&["--database-url", test.url()])).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.local_addr())).unwrap();
        let token = CancellationToken::new();
        let task = tokio::spawn(service.run(token.clone()));
        let client = PaymentServiceClient::new(endpoint.connect().await.unwrap());
        Self { client, token, task, _test: test }
    }

    /// Waits for the end of a service that was told to stop.
    pub(crate) async fn stopped(self) -> Result<(), Error> {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the service does not stop").unwrap()
    }
}

/// A row as it lies on disk.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) order_id: &'static str,
    pub(crate) status: &'static str,
    pub(crate) created_at_us: i64,
}

async fn store(url: &str, payments: &[Stored]) {
    let database = Database::open(url, MIGRATIONS).await.unwrap();
    for payment in payments.iter().copied() {
        let insert = database.write(move |connection| {
            Box::pin(async move {
                let sql = "INSERT INTO payments (order_id, customer_id, currency_code, amount_minor, status, \
                     charge_id, decline_reason, created_at_us) VALUES ($1, 'ada', 'EUR', 1200, $2, $3, $4, $5)";
                let captured = payment.status == "CAPTURED";
                sqlx::query(sql)
                    .bind(payment.order_id)
                    .bind(payment.status)
                    .bind(if captured { "ch_1" } else { "" })
                    .bind(if captured { "" } else { "stolen_card" })
                    .bind(payment.created_at_us)
                    .execute(connection)
                    .await?;
                Ok::<_, db::Error>(())
            })
        });
        insert.await.unwrap();
    }
}

/// The steps that version 1 knows.
const MIGRATIONS: &[db::Migration] =
    &[db::Migration { version: 100, name: "payments", sql: include_str!("../../migrations/0100_payments.sql") }];

/// A configuration with a free port, and a broker and an acquirer that nobody runs.
pub(crate) fn config(flags: &[&str]) -> Config {
    // Port 1 is reserved: nobody listens there.
    let nobody = "http://127.0.0.1:1";
    let all = ["payment-service", "--listen", "127.0.0.1:0", "--broker", nobody, "--acquirer", nobody];
    Args::try_parse_from(all.iter().chain(flags)).unwrap().config
}
