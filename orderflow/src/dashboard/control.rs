//! What people do to the stack from the page.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::{PublishRequest, PubsubMessage};
use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::event::{CE_ID, CE_SOURCE, CE_TYPE};
use uuid::Uuid;

use super::http::{Page, body};
use super::site::CALL_WITHIN;
use super::{Refusal, site};
use crate::acquirer::{AcquirerClient, Behaviour};
use crate::audit::Error;
use crate::part::Instance;
use crate::place;
use crate::up::{Reply, Request};

/// Orders that one request places at most.
const ORDERS_MAX: u32 = 1_000;
/// How long an order is asked for again while order-service does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The topic that a poisoned message goes to.
const TOPIC: &str = "projects/orderflow/topics/order-events";

type Body = Result<Bytes, BytesRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Orders {
    count: u32,
    customer: String,
    card: String,
    synchronous: bool,
    payment_deadline_ms: Option<u64>,
    email: String,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            count: 1,
            customer: "alice".to_owned(),
            card: "tok_visa".to_owned(),
            synchronous: false,
            payment_deadline_ms: None,
            email: String::new(),
        }
    }
}

/// `POST /api/orders`
pub(super) async fn place(State(page): State<Page>, bytes: Body) -> Result<Json<Value>, Refusal> {
    let Orders { count, customer, card, synchronous, payment_deadline_ms, email } = body(bytes)?;
    if !(1..=ORDERS_MAX).contains(&count) {
        return Err(Refusal::bad(format!("`count` must be 1 to {ORDERS_MAX}")));
    }
    let config = place::Config {
        orders: count,
        customer,
        card,
        synchronous,
        payment_deadline: payment_deadline_ms.map(Duration::from_millis),
        email,
        patience: PATIENCE,
        ..place::Config::default()
    };
    let url = &page.live.site.addresses.order_service;
    let client = OrderServiceClient::new(site::channel(url)?);
    let mut order_ids = Vec::new();
    let placed = place::run(client, &config, |order| order_ids.push(order.order_id)).await;
    let error = placed.err().map(|status| Error::grpc("order-service", url)(status).to_string());
    // The ids sort by the time of acceptance.
    order_ids.sort_unstable();
    page.live.touch();
    let accepted = order_ids.len();
    let refused = usize::try_from(count).unwrap_or_default() - accepted;
    Ok(Json(json!({ "accepted": accepted, "refused": refused, "order_ids": order_ids, "error": error })))
}

/// `POST /api/parts/NAME/kill`, `stop` and `start`
pub(super) async fn part(
    State(page): State<Page>,
    Path((name, verb)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let missing = |problem: String| Refusal::new(StatusCode::NOT_FOUND, problem);
    let part: Instance = name.parse().map_err(|unknown: crate::UnknownInstance| missing(unknown.to_string()))?;
    let request = match verb.as_str() {
        "kill" => Request::Kill { part },
        "stop" => Request::Stop { part },
        "start" => Request::Start { part },
        _ => return Err(missing(format!("a part can be killed, stopped and started; `{verb}` is none of these"))),
    };
    let Some(stack) = page.live.site.owned.clone() else {
        let command = page.live.site.commands.command(&verb, part);
        return Err(Refusal::new(StatusCode::CONFLICT, format!("somebody else runs the processes; type: {command}")));
    };
    // Whoever asked may close the page meanwhile; what was begun is finished.
    let reply = tokio::spawn(async move { stack.handle(request).await }).await;
    page.live.touch();
    match reply {
        Ok(Reply::Done { message }) => Ok(Json(json!({ "message": message }))),
        Ok(Reply::Refused { message }) => Err(Refusal::new(StatusCode::CONFLICT, message)),
        Ok(Reply::Status { .. }) | Err(_) => Err(Refusal::new(StatusCode::CONFLICT, "the request was broken off")),
    }
}

/// `PUT /api/acquirer`
pub(super) async fn acquirer(State(page): State<Page>, bytes: Body) -> Result<Json<Behaviour>, Refusal> {
    let behaviour: Behaviour = body(bytes)?;
    if !(1..=100).contains(&behaviour.percent) {
        return Err(Refusal::bad("`percent` must be 1 to 100"));
    }
    AcquirerClient::new(&page.live.site.addresses.acquirer, CALL_WITHIN).behave_as(behaviour).await?;
    page.live.set_acquirer(Some(behaviour));
    page.live.touch();
    Ok(Json(behaviour))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `POST /api/poison`
pub(super) async fn poison(State(page): State<Page>, bytes: Body) -> Result<Json<Value>, Refusal> {
    let Nothing {} = body(bytes)?;
    let attributes = [
        (CE_ID, Uuid::now_v7().to_string()),
        (CE_TYPE, "orderflow.events.v1.OrderPlaced".to_owned()),
        (CE_SOURCE, "dashboard".to_owned()),
    ];
    let message = PubsubMessage {
        data: Bytes::from_static(b"not an event"),
        attributes: HashMap::from(attributes.map(|(name, value)| (name.to_owned(), value))),
        ..Default::default()
    };
    let url = &page.live.site.addresses.broker;
    let request = PublishRequest { topic: TOPIC.into(), messages: vec![message] };
    let published = PublisherClient::new(site::channel(url)?).publish(request).await;
    let published = published.map_err(Error::grpc("broker", url))?.into_inner();
    let message_id = published.message_ids.into_iter().next();
    Ok(Json(json!({ "message_id": message_id })))
}
