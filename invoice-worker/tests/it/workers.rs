use std::time::Duration;

use clap::Parser;
use invoice_worker::{Config, Error, Service};
use orderflow_proto::orderflow::events::v1::{InvoiceJob, InvoiceLine, InvoiceRendered};
use orderflow_proto::orderflow::r#type::v1::Money;
use prost::Message as _;
use prost_types::Timestamp;
use service_kit::CancellationToken;
use service_kit::consumer::DEAD_LETTER_REASON;
use tokio::task::JoinHandle;

use crate::fake::Fake;

const QUEUE: &str = "invoice-worker.invoice-jobs";

/// How long a condition may take to come true. Generous: it only bounds a failure.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    config: Config,
}

fn config(broker: &str) -> Config {
    let flags = ["invoice-worker", "--listen", "127.0.0.1:0", "--broker", broker, "--project", "test"];
    Args::try_parse_from(flags).unwrap().config
}

struct Worker {
    token: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Worker {
    async fn start(fake: &Fake) -> Self {
        let service = Service::open(config(&format!("http://{}", fake.address()))).await.unwrap();
        let token = CancellationToken::new();
        Self { task: tokio::spawn(service.run(token.clone())), token }
    }

    async fn stop(self) {
        self.token.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("it does not stop").unwrap().unwrap();
    }

    async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "it did not come true in time: {what}");
}

fn put(fake: &Fake, number: u32) {
    let eur = |amount_minor| Some(Money { currency_code: "EUR".into(), amount_minor });
    let time = Some(Timestamp { seconds: 1_795_305_600, nanos: 0 });
    let job = InvoiceJob {
        invoice_number: format!("INV-{number:06}"),
        order_id: format!("o-{number}"),
        customer_id: "ada".into(),
        customer_email: String::new(),
        lines: vec![InvoiceLine { sku: "coffee".into(), quantity: 2, unit_price: eur(500) }],
        total: eur(1_000),
        order_time: time,
        paid_time: time,
    };
    let id = format!("job-{number}");
    let attributes = [("ce-id", id.as_str()), ("ce-type", "orderflow.events.v1.InvoiceJob")];
    fake.put(QUEUE, "", &attributes, job.encode_to_vec());
}

/// The numbers of the invoices that were published, each under the id that belongs to it.
fn invoices(fake: &Fake) -> Vec<String> {
    let invoice = |message: &orderflow_proto::google::pubsub::v1::PubsubMessage| {
        let rendered = InvoiceRendered::decode(message.data.as_ref()).unwrap();
        assert!(rendered.pdf.starts_with(b"%PDF-"));
        let number: u32 = rendered.invoice_number[4..].parse().unwrap();
        assert_eq!(message.attributes["ce-id"], format!("job-{number}/rendered"));
        assert_eq!(message.attributes["ce-type"], "orderflow.events.v1.InvoiceRendered");
        assert_eq!(message.ordering_key, "");
        rendered.invoice_number
    };
    fake.published("invoices").iter().map(invoice).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_queue_and_set_poison_aside() {
    let fake = Fake::start();
    fake.subscription(QUEUE);
    fake.put(QUEUE, "", &[("ce-id", "bad"), ("ce-type", "orderflow.events.v1.InvoiceJob")], [0xff; 8]);
    (1..=50).for_each(|number| put(&fake, number));
    let workers = [Worker::start(&fake).await, Worker::start(&fake).await];
    until("every job is done", || fake.is_drained(QUEUE)).await;
    let mut done = invoices(&fake);
    done.sort();
    done.dedup();
    assert_eq!(done, (1..=50).map(|number| format!("INV-{number:06}")).collect::<Vec<_>>());
    let letters = fake.published("dead-letters");
    assert_eq!(letters.len(), 1);
    assert!(letters[0].attributes[DEAD_LETTER_REASON].contains("does not decode"));
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_killed_worker_go_to_another_and_nothing_is_acked_before_its_invoice_is_there() {
    let fake = Fake::start();
    fake.subscription(QUEUE);
    fake.state().lose_replies = true;
    (1..=5).for_each(|number| put(&fake, number));
    let worker = Worker::start(&fake).await;
    // The broker has taken the invoices, but the worker cannot know it.
    until("invoices were published", || !invoices(&fake).is_empty()).await;
    worker.kill().await;
    assert!(fake.state().acked.is_empty());
    until("the jobs are free", || fake.state().is_free()).await;
    fake.state().lose_replies = false;
    let other = Worker::start(&fake).await;
    until("every job is done", || fake.is_drained(QUEUE)).await;
    let mut done = invoices(&fake);
    assert!(done.len() > 5, "what was published without a reply is published again, under the same id");
    done.sort();
    done.dedup();
    assert_eq!(done.len(), 5);
    assert!(fake.state().nacked.is_empty(), "no attempt was counted");
    other.stop().await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_whole_and_names_its_variables() {
    let mut bad = config("broker:8085");
    bad.seller = "Shop||Town".to_owned();
    let error = Service::open(bad).await.unwrap_err();
    for name in ["INVOICE_SELLER", "BROKER_URL"] {
        assert!(error.to_string().contains(name), "{name} is not in: {error}");
    }
}
