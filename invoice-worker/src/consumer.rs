//! Jobs arrive here, and rendered invoices leave.

use fail_points::Point;
use orderflow_proto::orderflow::events::v1 as wire;
use prost::Message as _;
use service_kit::CancellationToken;
use service_kit::breaker::{Breaker, Interrupted, Settings, Unavailable};
use service_kit::consumer::{ConsumerConfig, Handler, Outcome};
use service_kit::event::Event;
use service_kit::outbox::NewEvent;
use service_kit::publish::{self, Publisher};

use crate::domain::{Currency, Date, Invoice, Line, Seller, ValueError, date, invoice_number, quantity, text};
use crate::render::render;

/// Jobs that a worker has under way at once. Most of the time they wait for the broker.
const CONCURRENCY: usize = 16;

/// Bytes of a job's event id at most: the invoice's is a little longer, and an attribute has its limit, too.
const EVENT_ID_BYTES_MAX: usize = 256;

/// The name under which the worker tells events.
const SOURCE: &str = "invoice-worker";

/// The subscription with the work.
pub(crate) const INVOICE_JOBS: ConsumerConfig = ConsumerConfig {
    subscription: "invoice-worker.invoice-jobs",
    dead_letters: "dead-letters",
    concurrency: CONCURRENCY,
};

/// Takes an event on its way.
pub(crate) trait Publish: Send + Sync + 'static {
    /// Returns when the broker has the event.
    fn publish(&self, id: &str, event: NewEvent) -> impl Future<Output = Result<(), publish::Error>> + Send;
}

impl Publish for Publisher {
    async fn publish(&self, id: &str, event: NewEvent) -> Result<(), publish::Error> {
        Self::publish(self, id, SOURCE, event).await
    }
}

/// Renders invoices.
#[derive(Debug)]
pub(crate) struct Jobs<P> {
    seller: Seller,
    publisher: P,
    broker: Breaker,
}

/// Why a job can never be done.
#[derive(Debug, thiserror::Error)]
enum Poison {
    #[error("the payload does not decode: {0}")]
    Payload(#[from] prost::DecodeError),
    #[error("`{0}` {1}")]
    Field(String, ValueError),
    #[error("`{0}` is missing")]
    Missing(String),
    #[error("`{0}` is in another currency than `total`")]
    OtherCurrency(String),
    #[error("the event's id has more than {EVENT_ID_BYTES_MAX} bytes")]
    EventId,
}

impl<P> Jobs<P> {
    /// Renders invoices of this seller.
    pub(crate) fn new(seller: Seller, publisher: P) -> Self {
        Self { seller, publisher, broker: Breaker::new("broker", Settings::default()) }
    }
}

impl<P: Publish> Handler for Jobs<P> {
    async fn handle(&self, event: &Event, stopping: &CancellationToken) -> Outcome {
        if event.kind != "orderflow.events.v1.InvoiceJob" {
            return Outcome::Done;
        }
        let (id, rendered) = match self.rendered(event) {
            Ok(rendered) => rendered,
            Err(poison) => return Outcome::Reject(poison.to_string()),
        };
        // The job is acked only when the broker has its result: until then it is repeated, here or by another worker.
        let publish = || async {
            match self.publisher.publish(&id, rendered.clone()).await {
                Err(publish::Error::Unavailable(reason)) => Err(Unavailable(reason)),
                result => Ok(result),
            }
        };
        let published = self.broker.until_answered(stopping, publish).await;
        fail_points::pass(Point::InvoicePublished);
        match published {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(error)) => Outcome::Reject(error.to_string()),
            Err(Interrupted) => Outcome::Interrupted,
        }
    }
}

impl<P> Jobs<P> {
    /// The invoice of a job, with its event id: a repeat of the job gives the same event.
    fn rendered(&self, event: &Event) -> Result<(String, NewEvent), Poison> {
        if event.id.len() > EVENT_ID_BYTES_MAX {
            return Err(Poison::EventId);
        }
        let job = wire::InvoiceJob::decode(event.payload.clone())?;
        let (total, customer_email) = (job.total.clone(), job.customer_email.clone());
        let invoice = parse(job)?;
        let payload = wire::InvoiceRendered {
            invoice_number: invoice.number.clone(),
            order_id: invoice.order_id.clone(),
            customer_id: invoice.customer_id.clone(),
            customer_email,
            total,
            pdf: render(&self.seller, &invoice),
        };
        let rendered = NewEvent {
            topic: "invoices",
            ordering_key: String::new(),
            kind: "orderflow.events.v1.InvoiceRendered",
            payload: payload.encode_to_vec(),
        };
        Ok((format!("{}/rendered", event.id), rendered))
    }
}

fn parse(job: wire::InvoiceJob) -> Result<Invoice, Poison> {
    let total = job.total.ok_or_else(|| Poison::Missing("total".to_owned()))?;
    let currency = Currency::parse(&total.currency_code).map_err(field("total.currency_code"))?;
    let number = invoice_number(job.invoice_number).map_err(field("invoice_number"))?;
    let order_id = text(job.order_id).map_err(field("order_id"))?;
    let customer_id = text(job.customer_id).map_err(field("customer_id"))?;
    let days = (day("order_time", job.order_time)?, day("paid_time", job.paid_time)?);
    let mut lines = Vec::with_capacity(job.lines.len());
    for (at, line) in job.lines.into_iter().enumerate() {
        lines.push(parse_line(at, line, &currency)?);
    }
    Invoice::empty(number, order_id, customer_id, job.customer_email, currency, days)
        .with_lines(lines, total.amount_minor)
        .map_err(|error| field(if error == ValueError::Total { "total" } else { "lines" })(error))
}

fn parse_line(at: usize, line: wire::InvoiceLine, currency: &Currency) -> Result<Line, Poison> {
    let name = |name: &str| format!("lines[{at}].{name}");
    let price = line.unit_price.ok_or_else(|| Poison::Missing(name("unit_price")))?;
    if price.currency_code != currency.code() {
        return Err(Poison::OtherCurrency(name("unit_price")));
    }
    Ok(Line {
        sku: text(line.sku).map_err(field(name("sku")))?,
        quantity: quantity(line.quantity).map_err(field(name("quantity")))?,
        unit_price_minor: price.amount_minor,
    })
}

fn day(name: &str, time: Option<prost_types::Timestamp>) -> Result<Date, Poison> {
    let time = time.ok_or_else(|| Poison::Missing(name.to_owned()))?;
    date(time.seconds).map_err(field(name))
}

fn field(name: impl Into<String>) -> impl FnOnce(ValueError) -> Poison {
    move |error| Poison::Field(name.into(), error)
}

#[cfg(test)]
mod tests;
