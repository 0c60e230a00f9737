use std::time::Duration;

use clap::Parser;
use notification_service::{Config, Error, Service};
use orderflow_proto::orderflow::notification::v1::notification_service_client::NotificationServiceClient;
use service_kit::CancellationToken;
use service_kit::db::{self, Database};
use test_database::TestDatabase;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(20);

/// A service that runs on its own database.
pub(crate) struct Running {
    pub(crate) client: NotificationServiceClient<Channel>,
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
    /// Starts on a database whose tables are those of version 1, with `count` notifications of `ada` in them.
    pub(crate) async fn start_with(count: i64) -> Self {
        let test = TestDatabase::new();
        store(test.url(), count).await;
        let service = Service::open(config(&["--database-url", test.url()])).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", service.local_addr())).unwrap();
        let token = CancellationToken::new();
        let task = tokio::spawn(service.run(token.clone()));
        let client = NotificationServiceClient::new(endpoint.connect().await.unwrap());
        Self { client, token, task, _test: test }
    }

    /// Waits for the end of a service that was told to stop.
    pub(crate) async fn stopped(self) -> Result<(), Error> {
        within(self.task).await.unwrap()
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened in time")
}

async fn store(url: &str, count: i64) {
    let database = Database::open(url, MIGRATIONS).await.unwrap();
    for number in 1..=count {
        let insert = database.write(move |connection| {
            Box::pin(async move {
                let sql = "INSERT INTO notifications (customer_id, number, order_id, kind, body, event_id, \
                     created_at_us) VALUES ('ada', $1, 'o-1', 'ORDER_RECEIVED', 'Hello', $2, 1700000000000001)";
                sqlx::query(sql).bind(number).bind(format!("e-{number}")).execute(connection).await?;
                Ok::<_, db::Error>(())
            })
        });
        insert.await.unwrap();
    }
}

/// The steps that version 1 knows.
const MIGRATIONS: &[db::Migration] = &[db::Migration {
    version: 100,
    name: "notifications",
    sql: include_str!("../../migrations/0100_notifications.sql"),
}];

/// A configuration with a free port and a broker that nobody runs.
pub(crate) fn config(flags: &[&str]) -> Config {
    // Port 1 is reserved: nobody listens there.
    let all = ["notification-service", "--listen", "127.0.0.1:0", "--broker", "http://127.0.0.1:1"];
    Args::try_parse_from(all.iter().chain(flags)).unwrap().config
}
