//! payment-service and the simulated acquirer, over real sockets: what each card and each trouble comes to.

use clap::Parser;
use orderflow::acquirer::{ChargeStatus, Mode};
use orderflow_proto::orderflow::payment::v1::payment_service_client::PaymentServiceClient;
use orderflow_proto::orderflow::payment::v1::{ChargeRequest, GetPaymentRequest, Payment, PaymentStatus};
use orderflow_proto::orderflow::r#type::v1::Money;
use payment_service::{Config, Service};
use service_kit::CancellationToken;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::acquirer::Running;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    config: Config,
}

/// payment-service on its own folder, with an acquirer, and without a broker: calls need none.
struct Suite {
    acquirer: Running,
    client: PaymentServiceClient<Channel>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _folder: TempDir,
}

impl Suite {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let acquirer = Running::start(&folder).await;
        let database = format!("sqlite://{}/payment.db", folder.path().display());
        // Port 1 is reserved: nobody listens there.
        let arguments = ["payment", "--listen", "127.0.0.1:0", "--broker", "http://127.0.0.1:1"];
        let more = ["--acquirer", &acquirer.url, "--database-url", &database];
        let config = Args::try_parse_from(arguments.iter().chain(&more)).unwrap().config;
        let service = Service::open(config).await.unwrap();
        let url = format!("http://{}", service.local_addr());
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move { service.run(token).await.unwrap() });
        let client = PaymentServiceClient::new(Endpoint::from_shared(url).unwrap().connect().await.unwrap());
        Self { acquirer, client, stop, task, _folder: folder }
    }

    async fn charge(&self, request: &ChargeRequest) -> Result<Payment, Status> {
        Ok(self.client.clone().charge(request.clone()).await?.into_inner().payment.unwrap())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.acquirer.stop().await;
    }
}

fn request(card: &str) -> ChargeRequest {
    ChargeRequest {
        order_id: Uuid::now_v7().to_string(),
        customer_id: "ada".to_owned(),
        amount: Some(Money { currency_code: "EUR".to_owned(), amount_minor: 1_299 }),
        payment_token: card.to_owned(),
        attempt: 1,
    }
}

#[tokio::test]
async fn each_card_has_its_outcome_and_no_order_is_charged_twice() {
    let suite = Suite::start().await;
    let table = [
        ("tok_visa", PaymentStatus::Captured, "", 1),
        ("tok_flaky", PaymentStatus::Captured, "", 3),
        ("tok_lost_reply", PaymentStatus::Captured, "", 2),
        ("tok_stolen_card", PaymentStatus::Declined, "stolen_card", 1),
        ("tok_insufficient_funds", PaymentStatus::Declined, "insufficient_funds", 1),
        ("tok_expired_card", PaymentStatus::Declined, "expired_card", 1),
        ("tok_of_nobody", PaymentStatus::Declined, "unknown_card", 1),
    ];
    for (card, status, reason, tries) in table {
        let request = request(card);
        for _ in 0..2 {
            let payment = suite.charge(&request).await.unwrap();
            assert_eq!((payment.status(), payment.decline_reason.as_str()), (status, reason), "{card}");
            assert!(payment.attempts[0].tries >= tries, "{card}: {payment:?}");
        }
    }
    let ledger = suite.acquirer.client.ledger().await.unwrap();
    assert_eq!(ledger.len(), table.len());
    assert!(ledger.iter().all(|entry| entry.movements.len() == 1), "{ledger:?}");
    suite.stop().await;
}

#[tokio::test]
async fn a_retry_with_another_card_has_its_own_charge() {
    let suite = Suite::start().await;
    let first = request("tok_stolen_card");
    suite.charge(&first).await.unwrap();
    let second = ChargeRequest { payment_token: "tok_visa".to_owned(), attempt: 2, ..first.clone() };
    let payment = suite.charge(&second).await.unwrap();
    assert_eq!((payment.status(), payment.attempt, payment.attempts.len()), (PaymentStatus::Captured, 2, 2));
    let ledger = suite.acquirer.client.ledger().await.unwrap();
    let keys: Vec<_> = ledger.iter().map(|entry| entry.idempotency_key.clone()).collect();
    assert_eq!(keys, [first.order_id.clone(), format!("{}/2", first.order_id)]);
    suite.stop().await;
}

#[tokio::test]
async fn an_acquirer_that_is_down_is_told_to_the_caller_and_seen_in_the_payment() {
    let suite = Suite::start().await;
    suite.acquirer.client.behave(Mode::Unavailable).await.unwrap();
    let asked = request("tok_visa");
    assert_eq!(suite.charge(&asked).await.unwrap_err().code(), Code::Unavailable);
    let pending = GetPaymentRequest { order_id: asked.order_id.clone() };
    let payment = suite.client.clone().get_payment(pending).await.unwrap().into_inner().payment.unwrap();
    assert_eq!(payment.status(), PaymentStatus::Pending);
    assert!(payment.attempts[0].detail.contains("503"), "{payment:?}");
    assert!(suite.acquirer.client.ledger().await.unwrap().is_empty());
    suite.stop().await;
}

#[tokio::test]
async fn a_charge_whose_caller_is_gone_is_written_down() {
    let suite = Suite::start().await;
    let request = request("tok_slow");
    let mut hurried = tonic::Request::new(request.clone());
    hurried.set_timeout(std::time::Duration::from_millis(500));
    let status = suite.client.clone().charge(hurried).await.unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status:?}");
    // The same charge again comes to the same end, whichever of the two is faster.
    let payment = suite.charge(&request).await.unwrap();
    assert_eq!(payment.status(), PaymentStatus::Captured);
    let ledger = suite.acquirer.client.ledger().await.unwrap();
    let statuses: Vec<_> = ledger.iter().map(|entry| entry.charge.status).collect();
    assert_eq!(statuses, [ChargeStatus::Captured]);
    suite.stop().await;
}
