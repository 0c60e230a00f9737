//! `orderflow place`: places orders as a patient customer does, who asks again with the same idempotency key until
//! there is an answer.

use std::sync::Arc;
use std::time::Duration;

use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;
use orderflow_proto::orderflow::order::v1::{Order, OrderLine, PlaceOrderRequest};
use orderflow_proto::orderflow::r#type::v1::{CheckoutMode, Money};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use uuid::Uuid;

/// Orders that are placed at the same time.
const IN_FLIGHT_MAX: usize = 16;
/// Pause before the same order is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What to order, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// How many orders
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub orders: u32,
    /// Whose orders
    #[arg(long, default_value = "alice")]
    pub customer: String,
    /// What is ordered
    #[arg(long, default_value = "tea")]
    pub sku: String,
    /// How many of it
    #[arg(long, default_value_t = 1)]
    pub quantity: u32,
    /// What one costs, in minor units of the currency
    #[arg(long, default_value_t = 1299)]
    pub amount_minor: i64,
    /// The currency
    #[arg(long, default_value = "EUR")]
    pub currency: String,
    /// The card; tok_insufficient_funds is declined
    #[arg(long, default_value = "tok_visa")]
    pub card: String,
    /// Charge within the request, instead of through the queue
    #[arg(long)]
    pub synchronous: bool,
    /// Cancel the order by itself when it is not paid by then
    #[arg(long, value_parser = humantime::parse_duration)]
    pub payment_deadline: Option<Duration>,
    /// Where the customer gets e-mail; empty for none
    #[arg(long, default_value = "")]
    pub email: String,
    /// How long to go on asking while order-service is away
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            orders: 1,
            customer: "alice".to_owned(),
            sku: "tea".to_owned(),
            quantity: 1,
            amount_minor: 1_299,
            currency: "EUR".to_owned(),
            card: "tok_visa".to_owned(),
            synchronous: false,
            payment_deadline: None,
            email: String::new(),
            patience: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// An order of this configuration, under a key of its own.
    pub(crate) fn request(&self) -> PlaceOrderRequest {
        let mode = if self.synchronous { CheckoutMode::Synchronous } else { CheckoutMode::Asynchronous };
        let unit_price = Money { currency_code: self.currency.clone(), amount_minor: self.amount_minor };
        PlaceOrderRequest {
            idempotency_key: Uuid::now_v7().to_string(),
            customer_id: self.customer.clone(),
            lines: vec![OrderLine { sku: self.sku.clone(), quantity: self.quantity, unit_price: Some(unit_price) }],
            payment_token: self.card.clone(),
            checkout_mode: mode.into(),
            payment_deadline: self.payment_deadline.map(|deadline| prost_types::Duration {
                seconds: i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(deadline.subsec_nanos()).unwrap_or_default(),
            }),
            customer_email: self.email.clone(),
        }
    }
}

/// Places all orders of a configuration, several at a time, and gives each to `accepted` as it is accepted.
///
/// What one order is refused for, the others would be too: they are not tried any more. Those that are under way are
/// waited for, since they may have been accepted. Then the first refusal is the error.
pub async fn run(
    client: OrderServiceClient<Channel>,
    config: &Config,
    mut accepted: impl FnMut(Order),
) -> Result<(), Status> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut orders = JoinSet::new();
    for _ in 0..config.orders {
        let (client, request, places) = (client.clone(), config.request(), Arc::clone(&places));
        let patience = config.patience;
        orders.spawn(async move {
            let _place = places.acquire_owned().await.ok()?;
            Some(place(client, request, patience).await)
        });
    }
    let mut outcome = Ok(());
    while let Some(placed) = orders.join_next().await {
        let status = match placed {
            Ok(Some(Ok(order))) => {
                accepted(order);
                continue;
            }
            Ok(None) => continue,
            Ok(Some(Err(status))) => status,
            Err(error) => Status::internal(error.to_string()),
        };
        places.close();
        outcome = outcome.and(Err(status));
    }
    outcome
}

/// Places one order. While nobody answers it is asked for again with the same key, so that it can't be made twice.
pub async fn place(
    client: OrderServiceClient<Channel>,
    request: PlaceOrderRequest,
    patience: Duration,
) -> Result<Order, Status> {
    let ask = || {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.place_order(request).await }
    };
    patiently(patience, ask).await?.into_inner().order.ok_or_else(|| Status::internal("a reply without its order"))
}

/// Asks, and asks again while nobody answers, for as long as the patience lasts.
pub(crate) async fn patiently<T, F>(patience: Duration, ask: impl Fn() -> F) -> Result<Response<T>, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let deadline = Instant::now() + patience;
    loop {
        let status = match ask().await {
            Ok(reply) => return Ok(reply),
            Err(status) => status,
        };
        if !unanswered(status.code()) || Instant::now() + RETRY_PAUSE > deadline {
            return Err(status);
        }
        time::sleep(RETRY_PAUSE).await;
    }
}

/// Whether a code leaves open if the order was accepted. tonic reports a broken connection as `Unknown` or
/// `Cancelled`, too.
fn unanswered(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::ResourceExhausted
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        let parsed = Cli::parse_from(["place"]).config;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }
}
