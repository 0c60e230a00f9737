//! The promise of the whole suite: orders are taken while parts die, and each is paid exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orderflow::acquirer::{AcquirerClient, Mode};
use orderflow::audit::{self, Books, ChargeState, Money, Sums};
use orderflow::{Part, place};
use orderflow_proto::orderflow::order::v1::{Order, OrderLine, PlaceOrderRequest};
use orderflow_proto::orderflow::r#type::v1::Money as WireMoney;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{DEADLINE, Stack};

const CLIENTS: u32 = 20;
const ORDERS_PER_CLIENT: u32 = 50;
const ORDERS: u32 = CLIENTS * ORDERS_PER_CLIENT;
/// How many orders may be accepted while a part is killed or started. Fewer than lie between the last step and the end.
const ORDERS_BEYOND_A_STEP: u32 = 80;
/// How long a client asks again and how long the flow may take to drain: far more than it needs.
const PATIENCE: Duration = Duration::from_secs(120);

const PAYMENT_QUEUE: &str = "payment-service.order-events";

/// The order with this number: what it costs differs from its neighbours, every tenth is declined, and for every
/// twentieth the acquirer's answer is lost.
fn request(number: u32) -> PlaceOrderRequest {
    let line = |sku: &str, quantity, amount_minor| OrderLine {
        sku: sku.into(),
        quantity,
        unit_price: Some(WireMoney { currency_code: "EUR".into(), amount_minor }),
    };
    let card = match number % 20 {
        3 | 13 => "tok_insufficient_funds",
        7 => "tok_lost_reply",
        _ => "tok_visa",
    };
    PlaceOrderRequest {
        idempotency_key: format!("order-{number}"),
        customer_id: format!("customer-{}", number % 25),
        lines: vec![line("tea", 1 + number % 3, 649), line("number", 1, i64::from(number))],
        payment_token: card.into(),
        ..Default::default()
    }
}

fn costs(request: &PlaceOrderRequest) -> i64 {
    let price = |line: &OrderLine| line.unit_price.as_ref().unwrap().amount_minor;
    request.lines.iter().map(|line| i64::from(line.quantity) * price(line)).sum()
}

/// Many clients at once, each with its share of the orders. Tells how many are accepted as it goes, and waits at as many
/// as may be.
fn order_everything(
    stack: &Stack,
    accepted: &watch::Sender<u32>,
    most: &watch::Sender<u32>,
) -> JoinSet<Vec<(PlaceOrderRequest, Order)>> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (orders, accepted, mut most) = (stack.orders(), accepted.clone(), most.subscribe());
        clients.spawn(async move {
            let mut placed = Vec::new();
            for number in (0..ORDERS_PER_CLIENT).map(|order| client * ORDERS_PER_CLIENT + order) {
                most.wait_for(|most| *accepted.borrow() < *most).await.unwrap();
                let request = request(number);
                let order = place::place(orders.clone(), request.clone(), PATIENCE).await.unwrap();
                accepted.send_modify(|count| *count += 1);
                placed.push((request, order));
            }
            placed
        });
    }
    clients
}

/// Kills and starts parts as orders come in; each step waits for its number of accepted orders. While a part other
/// than order-service is down, orders have to be accepted, or the next step is never reached.
///
/// Orders go on during a step, but not past all steps: every kill hits a flow that is under way.
async fn kill_everything(stack: &Stack, mut accepted: watch::Receiver<u32>, most: &watch::Sender<u32>) {
    let steps = [
        (100, Part::PaymentService, false),
        (250, Part::PaymentService, true),
        (350, Part::PaymentService, false),
        (450, Part::PaymentService, true),
        (550, Part::Broker, false),
        (650, Part::Broker, true),
        (750, Part::OrderService, false),
        (750, Part::OrderService, true),
    ];
    for (orders, part, start) in steps {
        most.send_replace(orders + ORDERS_BEYOND_A_STEP);
        let reached = timeout(DEADLINE, accepted.wait_for(|count| *count >= orders)).await;
        reached.unwrap_or_else(|_| panic!("{orders} orders are accepted before {part} is touched")).unwrap();
        if start {
            stack.start_part(part).await;
        } else {
            stack.kill(part).await;
        }
    }
    most.send_replace(ORDERS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_orders_survive_four_kills_and_are_paid_once_each() {
    let stack = Stack::start().await;
    let (accepted, watched) = watch::channel(0);
    let most = watch::Sender::new(0);
    let clients = order_everything(&stack, &accepted, &most);
    kill_everything(&stack, watched, &most).await;
    let placed: Vec<_> = clients.join_all().await.into_iter().flatten().collect();

    let verdict = audit::run(&stack.addresses(), PATIENCE).await.unwrap();
    let output = stack.output();
    assert!(verdict.mismatches.is_empty(), "{}\n{output:#?}", verdict.table());
    let Sums { accepted, paid, declined, captured, refused, notifications, invoices, dead_letters, .. } = verdict.sums;
    assert_eq!((accepted, paid, declined), (1_000, 900, 100));
    assert_eq!((captured, refused, dead_letters), (900, 100, 0));
    assert_eq!((notifications, invoices), (900 * 4 + 100 * 2, 900));

    // The audit compares the suite with itself; the customers know what they ordered.
    let books = Books::read(&stack.addresses()).await.unwrap();
    let told: BTreeSet<&str> = placed.iter().map(|(_, order)| order.order_id.as_str()).collect();
    let kept: BTreeSet<&str> = books.orders.iter().map(|order| order.id.as_str()).collect();
    assert_eq!(told, kept, "what was accepted is kept, and no order was made twice");
    let expected: BTreeMap<&str, Money> = placed
        .iter()
        .filter(|(request, _)| request.payment_token != "tok_insufficient_funds")
        .map(|(request, order)| {
            (order.order_id.as_str(), Money { currency: "EUR".into(), amount_minor: costs(request) })
        })
        .collect();
    let captured = books.charges.iter().filter(|charge| charge.state == ChargeState::Captured);
    let captured: Vec<(&str, Money)> = captured.map(|charge| (charge.order.as_str(), charge.amount.clone())).collect();
    assert_eq!(captured.len(), expected.len(), "no charge twice");
    assert_eq!(captured.into_iter().collect::<BTreeMap<_, _>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_wait_in_the_queue_while_payment_is_down_and_drain_when_it_is_back() {
    let stack = Stack::start().await;
    stack.kill(Part::PaymentService).await;
    let said = stack.succeed(&["place", "--orders", "40", "--patience", "0s"]).await;
    assert!(said.contains("40 of 40 orders accepted"), "{said}");
    stack.wait_for_queue(PAYMENT_QUEUE, |queue| queue.backlog_messages == 40).await;
    let table = stack.succeed(&["queues"]).await;
    let line = table.lines().find(|line| line.starts_with(PAYMENT_QUEUE)).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("40"), "{table}");
    let audit = stack.command(&["audit"]).await;
    assert!(!audit.status.success(), "books that can't be read are no balance: {audit:?}");
    let away = format!("payment-service at {} does not answer", stack.url(Part::PaymentService));
    assert!(String::from_utf8_lossy(&audit.stderr).contains(&away), "{audit:?}");

    stack.start_part(Part::PaymentService).await;
    stack.wait_for_queue(PAYMENT_QUEUE, |queue| queue.backlog_messages == 0).await;
    let books = stack.succeed(&["audit", "--wait", "60s"]).await;
    assert!(books.contains("the books balance"), "{books}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquirer_that_is_away_makes_orders_wait_and_counts_as_no_attempt() {
    let mut stack = Stack::start().await;
    let acquirer = AcquirerClient::new(&stack.url(Part::Acquirer), DEADLINE);
    acquirer.behave(Mode::Unavailable).await.unwrap();
    stack.succeed(&["place", "--orders", "30", "--patience", "0s"]).await;
    stack.wait_for_line(|line| line.contains("the acquirer does not answer")).await;
    let audit = stack.command(&["audit"]).await;
    assert!(!audit.status.success(), "orders that wait are no balance: {audit:?}");
    assert_eq!(String::from_utf8_lossy(&audit.stdout).matches("still waits for its payment").count(), 30);

    stack.kill(Part::Acquirer).await;
    stack.succeed(&["place", "--orders", "10", "--patience", "0s"]).await;
    stack.wait_for_queue(PAYMENT_QUEUE, |queue| queue.backlog_messages == 40).await;
    let waiting = stack.queue(PAYMENT_QUEUE).await;
    assert_eq!((waiting.delayed_messages, waiting.dead_lettered_messages), (0, 0), "a nack would have delayed them");

    stack.start_part(Part::Acquirer).await;
    let verdict = audit::run(&stack.addresses(), PATIENCE).await.unwrap();
    assert!(verdict.mismatches.is_empty(), "{}\n{:#?}", verdict.table(), stack.output());
    assert_eq!((verdict.sums.paid, verdict.sums.dead_letters), (40, 0));
}
