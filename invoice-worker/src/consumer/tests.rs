use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use orderflow_proto::orderflow::r#type::v1::Money;
use prost_types::Timestamp;

use super::*;

/// Everything here takes milliseconds; who waits longer waits for nothing.
const DEADLINE: Duration = Duration::from_secs(20);

/// Keeps what is published, after as many failures as it was told.
#[derive(Default)]
struct Memory {
    failures: Mutex<Vec<publish::Error>>,
    published: Mutex<Vec<(String, NewEvent)>>,
}

impl Publish for Memory {
    async fn publish(&self, id: &str, event: NewEvent) -> Result<(), publish::Error> {
        if let Some(failure) = self.failures.lock().unwrap().pop() {
            return Err(failure);
        }
        self.published.lock().unwrap().push((id.to_owned(), event));
        Ok(())
    }
}

fn eur(amount_minor: i64) -> Option<Money> {
    Some(Money { currency_code: "EUR".to_owned(), amount_minor })
}

fn job() -> wire::InvoiceJob {
    let line = |sku: &str, quantity, price| wire::InvoiceLine { sku: sku.into(), quantity, unit_price: eur(price) };
    wire::InvoiceJob {
        invoice_number: "INV-000001".into(),
        order_id: "o-1".into(),
        customer_id: "ada".into(),
        customer_email: "ada@example.org".into(),
        lines: vec![line("coffee", 2, 500), line("tea", 1, 299)],
        total: eur(1_299),
        order_time: Some(Timestamp { seconds: 1_795_305_600, nanos: 0 }),
        paid_time: Some(Timestamp { seconds: 1_795_305_660, nanos: 0 }),
    }
}

fn message(id: &str, kind: &str, payload: Vec<u8>) -> Event {
    Event {
        id: id.to_owned(),
        kind: kind.to_owned(),
        source: String::new(),
        time: None,
        ordering_key: String::new(),
        payload: payload.into(),
        attributes: HashMap::new(),
        delivery_attempt: None,
    }
}

fn jobs() -> Jobs<Memory> {
    Jobs::new(Seller::parse("Shop").unwrap(), Memory::default())
}

async fn handle(jobs: &Jobs<Memory>, event: &Event) -> Outcome {
    let stopping = CancellationToken::new();
    tokio::time::timeout(DEADLINE, jobs.handle(event, &stopping)).await.expect("nothing happened in time")
}

const JOB: &str = "orderflow.events.v1.InvoiceJob";

#[tokio::test]
async fn a_repeated_job_gives_the_same_event() {
    let jobs = jobs();
    for _ in 0..2 {
        assert_eq!(handle(&jobs, &message("job-1", JOB, job().encode_to_vec())).await, Outcome::Done);
    }
    let published = jobs.publisher.published.lock().unwrap();
    assert_eq!(published.len(), 2);
    assert_eq!(published[0], published[1]);
    let (id, event) = &published[0];
    assert_eq!((id.as_str(), event.topic, event.ordering_key.as_str()), ("job-1/rendered", "invoices", ""));
    let rendered = wire::InvoiceRendered::decode(event.payload.as_slice()).unwrap();
    assert!(rendered.pdf.starts_with(b"%PDF-"));
    assert_eq!((rendered.invoice_number.as_str(), rendered.order_id.as_str()), ("INV-000001", "o-1"));
    assert_eq!((rendered.customer_id.as_str(), rendered.customer_email.as_str()), ("ada", "ada@example.org"));
    assert_eq!(rendered.total, eur(1_299));
}

#[tokio::test]
async fn a_job_waits_while_the_broker_is_away_and_is_set_aside_when_it_refuses() {
    let jobs = jobs();
    let event = message("job-1", JOB, job().encode_to_vec());
    jobs.publisher
        .failures
        .lock()
        .unwrap()
        .extend([publish::Error::Unavailable("gone".into()), publish::Error::Unavailable("gone".into())]);
    assert_eq!(handle(&jobs, &event).await, Outcome::Done);
    assert_eq!(jobs.publisher.published.lock().unwrap().len(), 1);
    jobs.publisher.failures.lock().unwrap().push(publish::Error::Refused("too large".into()));
    assert!(matches!(handle(&jobs, &event).await, Outcome::Reject(reason) if reason.contains("too large")));
}

#[tokio::test]
async fn a_stop_leaves_a_job_to_the_others() {
    let jobs = jobs();
    let (stopping, event) = (CancellationToken::new(), message("job-1", JOB, job().encode_to_vec()));
    stopping.cancel();
    assert_eq!(jobs.handle(&event, &stopping).await, Outcome::Interrupted);
    assert!(jobs.publisher.published.lock().unwrap().is_empty());
}

#[tokio::test]
async fn poison_is_rejected_and_names_its_field() {
    type Spoil = fn(&mut wire::InvoiceJob);
    let table: [(Spoil, &str); 18] = [
        (|job| job.invoice_number = "INV 1".into(), "`invoice_number`"),
        (|job| job.order_id.clear(), "`order_id`"),
        (|job| job.customer_id = "c".repeat(255), "`customer_id`"),
        (|job| job.total = None, "`total` is missing"),
        (|job| job.total = eur(1_298), "`total` is not what"),
        (|job| job.total.as_mut().unwrap().currency_code = "eur".into(), "`total.currency_code`"),
        (|job| job.order_time = None, "`order_time` is missing"),
        (|job| job.paid_time = None, "`paid_time` is missing"),
        (|job| job.paid_time.as_mut().unwrap().seconds = i64::MAX, "`paid_time`"),
        (|job| job.order_time.as_mut().unwrap().seconds = -1, "`order_time`"),
        (|job| job.lines.clear(), "`lines`"),
        (|job| job.lines = vec![job.lines[0].clone(); 1_001], "`lines`"),
        (|job| job.lines[1].sku.clear(), "`lines[1].sku`"),
        (|job| job.lines[0].quantity = 0, "`lines[0].quantity`"),
        (|job| job.lines[0].unit_price = None, "`lines[0].unit_price` is missing"),
        (|job| job.lines[1].unit_price.as_mut().unwrap().currency_code = "USD".into(), "`lines[1].unit_price`"),
        (|job| job.lines[1].unit_price = eur(-1), "`lines`"),
        (|job| job.lines[0].unit_price = eur(i64::MAX), "`lines`"),
    ];
    let jobs = jobs();
    for (spoil, expected) in table {
        let mut job = job();
        spoil(&mut job);
        match handle(&jobs, &message("job-1", JOB, job.encode_to_vec())).await {
            Outcome::Reject(reason) => assert!(reason.contains(expected), "{reason} instead of {expected}"),
            other => panic!("{other:?} instead of {expected}"),
        }
    }
    let garbage = handle(&jobs, &message("job-1", JOB, vec![0xff; 8])).await;
    assert!(matches!(garbage, Outcome::Reject(reason) if reason.contains("does not decode")));
    let long_id = message(&"i".repeat(EVENT_ID_BYTES_MAX + 1), JOB, job().encode_to_vec());
    assert!(matches!(handle(&jobs, &long_id).await, Outcome::Reject(reason) if reason.contains("id")));
    assert!(jobs.publisher.published.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_strange_address_is_no_reason_to_have_no_invoice() {
    let jobs = jobs();
    for customer_email in [String::new(), "x".repeat(10_000), "a\r\nBcc: b".to_owned()] {
        let job = wire::InvoiceJob { customer_email, ..job() };
        assert_eq!(handle(&jobs, &message("job-1", JOB, job.encode_to_vec())).await, Outcome::Done);
    }
}

#[tokio::test]
async fn events_of_other_types_are_none_of_its_business() {
    let jobs = jobs();
    assert_eq!(handle(&jobs, &message("e", "orderflow.events.v9.Other", vec![0xff; 8])).await, Outcome::Done);
    assert!(jobs.publisher.published.lock().unwrap().is_empty());
}
