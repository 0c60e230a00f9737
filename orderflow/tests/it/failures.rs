//! Every class of failure has one visible end, and the books balance after it. One stack of real processes for each.

use std::collections::HashMap;
use std::time::Duration;

use orderflow::acquirer::{AcquirerClient, Mode};
use orderflow::audit::{self, Verdict};
use orderflow::{Part, dead_letters};
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use orderflow_proto::google::pubsub::v1::subscriber_client::SubscriberClient;
use orderflow_proto::google::pubsub::v1::{
    AcknowledgeRequest, PublishRequest, PubsubMessage, PullRequest, Subscription,
};
use orderflow_proto::orderflow::order::v1::{
    CancelOrderRequest, GetOrderRequest, GetOrderResponse, Order, OrderLine, OrderStatus, PlaceOrderRequest,
    RetryPaymentRequest, TimelineKind,
};
use orderflow_proto::orderflow::r#type::v1::{CheckoutMode, Money};
use tokio::time::{self, Instant};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{DEADLINE, Stack};

const POLL: Duration = Duration::from_millis(20);
const PAYMENT_QUEUE: &str = "payment-service.order-events";
const TOPIC: &str = "projects/orderflow/topics/order-events";

fn request(key: &str, card: &str) -> PlaceOrderRequest {
    let unit_price = Some(Money { currency_code: "EUR".into(), amount_minor: 1299 });
    PlaceOrderRequest {
        idempotency_key: key.into(),
        customer_id: "alice".into(),
        customer_email: "alice@example.com".into(),
        lines: vec![OrderLine { sku: "tea".into(), quantity: 1, unit_price }],
        payment_token: card.into(),
        ..Default::default()
    }
}

impl Stack {
    async fn place(&self, request: PlaceOrderRequest) -> Order {
        self.orders().place_order(request).await.unwrap().into_inner().order.unwrap()
    }

    async fn order(&self, id: &str) -> GetOrderResponse {
        self.orders().get_order(GetOrderRequest { order_id: id.into() }).await.unwrap().into_inner()
    }

    /// An order with a timeline to which every service has told its part.
    async fn whole_order(&self, id: &str) -> GetOrderResponse {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let order = self.order(id).await;
            if order.timeline_missing.is_empty() {
                return order;
            }
            assert!(Instant::now() < deadline, "{:?}", order.timeline_missing);
            time::sleep(POLL).await;
        }
    }

    async fn cancel(&self, id: &str) -> Order {
        let request = CancelOrderRequest { order_id: id.into() };
        self.orders().cancel_order(request).await.unwrap().into_inner().order.unwrap()
    }

    /// Waits until an order has a status.
    async fn reaches(&self, id: &str, status: OrderStatus) -> GetOrderResponse {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.order(id).await;
            if found.order.as_ref().unwrap().status() == status {
                return found;
            }
            assert!(Instant::now() < deadline, "{found:?} is not {status:?}\n{:#?}", self.output());
            time::sleep(POLL).await;
        }
    }

    /// Waits until the books balance, as a person would with `audit --wait`.
    async fn balances(&self) -> Verdict {
        let verdict = audit::run(&self.addresses(), DEADLINE).await.unwrap();
        assert!(verdict.is_balanced(), "{}\n{:#?}", verdict.table(), self.output());
        verdict
    }

    fn channel(&self, part: Part) -> Channel {
        Endpoint::from_shared(self.url(part)).unwrap().connect_lazy()
    }

    fn acquirer(&self) -> AcquirerClient {
        AcquirerClient::new(&self.url(Part::Acquirer), DEADLINE)
    }
}

fn kinds(order: &GetOrderResponse) -> Vec<TimelineKind> {
    order.timeline.iter().map(|entry| entry.kind()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_order_is_paid_with_another_card() {
    let stack = Stack::start().await;
    let order = stack.place(request("declined", "tok_insufficient_funds")).await;
    let declined = stack.reaches(&order.order_id, OrderStatus::PaymentDeclined).await;
    assert_eq!(declined.order.unwrap().decline_reason, "insufficient_funds");
    let retry = RetryPaymentRequest { order_id: order.order_id.clone(), payment_token: "tok_visa".into() };
    stack.orders().retry_payment(retry).await.unwrap();
    stack.reaches(&order.order_id, OrderStatus::Paid).await;
    let sums = stack.balances().await.sums;
    assert_eq!((sums.paid, sums.declined, sums.captured, sums.refused), (1, 0, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_of_the_acquirer_is_one_charge_and_the_timeline_tells_every_step() {
    let stack = Stack::start().await;
    let order = stack.place(request("lost", "tok_lost_reply")).await;
    stack.reaches(&order.order_id, OrderStatus::Paid).await;
    let sums = stack.balances().await.sums;
    assert_eq!((sums.paid, sums.captured, sums.invoices, sums.notifications), (1, 1, 1, 4));
    let told = stack.whole_order(&order.order_id).await;
    let kinds = kinds(&told);
    for kind in [
        TimelineKind::Accepted,
        TimelineKind::Queued,
        TimelineKind::PaymentAttempted,
        TimelineKind::Charged,
        TimelineKind::Paid,
        TimelineKind::Notified,
        TimelineKind::Invoiced,
    ] {
        assert!(kinds.contains(&kind), "{kind:?} is not in {kinds:?}");
    }
    assert_eq!(kinds[0], TimelineKind::Accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_cancelled_while_payment_is_down_is_never_charged() {
    let stack = Stack::start().await;
    stack.kill(Part::PaymentService).await;
    let order = stack.place(request("waiting", "tok_visa")).await;
    assert_eq!(stack.cancel(&order.order_id).await.status(), OrderStatus::Cancelled);
    stack.start_part(Part::PaymentService).await;
    let sums = stack.balances().await.sums;
    assert_eq!((sums.cancelled, sums.paid), (1, 0));
    assert_eq!(sums.captured, sums.refunds, "whatever was charged before the cancellation was seen went back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_overtakes_the_charge_gives_the_money_back() {
    let stack = Stack::start().await;
    // The charge is in the ledger, its answer does not come: the cancellation comes in between.
    stack.acquirer().behave(Mode::LostReplies).await.unwrap();
    let order = stack.place(request("overtaken", "tok_visa")).await;
    let deadline = Instant::now() + DEADLINE;
    while stack.acquirer().ledger().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the charge is on its way\n{:#?}", stack.output());
        time::sleep(POLL).await;
    }
    assert_eq!(stack.cancel(&order.order_id).await.status(), OrderStatus::Cancelled);
    stack.acquirer().behave(Mode::Normal).await.unwrap();
    let sums = stack.balances().await.sums;
    assert_eq!((sums.cancelled, sums.captured, sums.refunds), (1, 1, 1));
    let kinds = kinds(&stack.order(&order.order_id).await);
    assert!(kinds.contains(&TimelineKind::Refunded), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_order_that_is_cancelled_gets_its_money_back() {
    let stack = Stack::start().await;
    let order = stack.place(request("refund", "tok_visa")).await;
    stack.reaches(&order.order_id, OrderStatus::Paid).await;
    stack.kill(Part::PaymentService).await;
    assert!(stack.cancel(&order.order_id).await.refund_pending);
    let waiting = audit::run(&stack.addresses(), Duration::ZERO).await;
    assert!(waiting.is_err() || !waiting.unwrap().is_balanced(), "a refund on its way is no balance");
    stack.start_part(Part::PaymentService).await;
    stack.reaches(&order.order_id, OrderStatus::Refunded).await;
    let sums = stack.balances().await.sums;
    assert_eq!((sums.refunded, sums.captured, sums.refunds, sums.invoices), (1, 1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_order_is_cancelled_by_itself_when_its_time_is_over() {
    let stack = Stack::start().await;
    stack.acquirer().behave(Mode::Unavailable).await.unwrap();
    let payment_deadline = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let order = stack.place(PlaceOrderRequest { payment_deadline, ..request("late", "tok_visa") }).await;
    stack.reaches(&order.order_id, OrderStatus::Cancelled).await;
    stack.acquirer().behave(Mode::Normal).await.unwrap();
    let sums = stack.balances().await.sums;
    assert_eq!((sums.cancelled, sums.paid), (1, 0));
    assert_eq!(sums.captured, sums.refunds);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_order_is_paid_within_the_request_or_not_at_all() {
    let stack = Stack::start().await;
    let synchronous = |key: &str, card: &str| PlaceOrderRequest {
        checkout_mode: CheckoutMode::Synchronous.into(),
        ..request(key, card)
    };
    assert_eq!(stack.place(synchronous("good", "tok_visa")).await.status(), OrderStatus::Paid);
    let declined = stack.place(synchronous("bad", "tok_stolen_card")).await;
    assert_eq!(declined.status(), OrderStatus::PaymentDeclined);

    stack.kill(Part::PaymentService).await;
    let refused = stack.orders().place_order(synchronous("down", "tok_visa")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(stack.place(request("beside", "tok_visa")).await.status(), OrderStatus::PendingPayment);
    stack.start_part(Part::PaymentService).await;
    // The key is free again: the same request makes an order now.
    assert_eq!(stack.place(synchronous("down", "tok_visa")).await.status(), OrderStatus::Paid);
    let sums = stack.balances().await.sums;
    // Nobody was told that the refused try is accepted, so that it is no order that was cancelled later.
    assert_eq!((sums.accepted, sums.paid, sums.declined), (4, 3, 1));
    assert_eq!((sums.cancelled, sums.refused_tries), (0, 1));
    assert_eq!(sums.captured - sums.refunds, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_taken_while_the_broker_is_down_and_flow_when_it_is_back() {
    let stack = Stack::start().await;
    stack.kill(Part::Broker).await;
    let order = stack.place(request("no broker", "tok_visa")).await;
    let kinds_now = kinds(&stack.order(&order.order_id).await);
    assert!(!kinds_now.contains(&TimelineKind::Queued), "{kinds_now:?}");
    stack.start_part(Part::Broker).await;
    stack.reaches(&order.order_id, OrderStatus::Paid).await;
    let sums = stack.balances().await.sums;
    assert_eq!((sums.paid, sums.captured, sums.dead_letters), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_delivered_twice_has_no_second_effect() {
    let stack = Stack::start().await;
    let topics = ["order-events", "payment-events", "invoice-jobs", "invoices"];
    let mut subscriber = SubscriberClient::new(stack.channel(Part::Broker));
    for topic in topics {
        let copy = Subscription {
            name: format!("projects/orderflow/subscriptions/copy.{topic}"),
            topic: format!("projects/orderflow/topics/{topic}"),
            enable_message_ordering: true,
            ..Default::default()
        };
        subscriber.create_subscription(copy).await.unwrap();
    }
    for (key, card) in [("a", "tok_visa"), ("b", "tok_stolen_card"), ("c", "tok_lost_reply")] {
        stack.place(request(key, card)).await;
    }
    let before = stack.balances().await.sums;
    let mut publisher = PublisherClient::new(stack.channel(Part::Broker));
    // All are taken before any is repeated: a repeated job is done again, and its result told again.
    let mut taken = Vec::new();
    for topic in topics {
        let subscription = format!("projects/orderflow/subscriptions/copy.{topic}");
        taken.push((topic, take_all(&mut subscriber, &subscription).await));
    }
    let mut copies = HashMap::new();
    for (topic, messages) in taken {
        for message in &messages {
            let kind = message.attributes["ce-type"].rsplit('.').next().unwrap().to_owned();
            *copies.entry(kind).or_insert(0) += 1;
        }
        let again = |message| PubsubMessage { message_id: String::new(), publish_time: None, ..message };
        let messages = messages.into_iter().map(again).collect();
        let topic = format!("projects/orderflow/topics/{topic}");
        publisher.publish(PublishRequest { topic, messages }).await.unwrap();
    }
    let expected = [
        ("OrderPlaced", 3),
        ("OrderPaid", 2),
        ("OrderDeclined", 1),
        ("PaymentCaptured", 2),
        ("PaymentDeclined", 1),
        ("InvoiceJob", 2),
        ("InvoiceRendered", 2),
    ];
    assert_eq!(copies, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    let after = stack.balances().await.sums;
    assert_eq!(before, after);
}

/// Everything that waits in a subscription, acked.
async fn take_all(subscriber: &mut SubscriberClient<Channel>, subscription: &str) -> Vec<PubsubMessage> {
    let mut messages = Vec::new();
    loop {
        #[allow(deprecated, reason = "the only way to ask without waiting")]
        let request = PullRequest { subscription: subscription.into(), max_messages: 100, return_immediately: true };
        let leased = subscriber.pull(request).await.unwrap().into_inner().received_messages;
        if leased.is_empty() {
            return messages;
        }
        let ack_ids = leased.iter().map(|lease| lease.ack_id.clone()).collect();
        subscriber.acknowledge(AcknowledgeRequest { subscription: subscription.into(), ack_ids }).await.unwrap();
        messages.extend(leased.into_iter().filter_map(|lease| lease.message));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_order_is_set_aside_mended_and_sent_back_and_reaches_its_end() {
    let stack = Stack::start().await;
    stack.kill(Part::PaymentService).await;
    let order = stack.place(request("poisoned", "tok_visa")).await;
    let healthy = stack.place(request("healthy", "tok_visa")).await;
    stack.wait_for_queue(PAYMENT_QUEUE, |queue| queue.backlog_messages == 2).await;
    // Somebody spoils the event on its way: what payment-service gets is not what order-service said.
    let mut subscriber = SubscriberClient::new(stack.channel(Part::Broker));
    let queue = format!("projects/orderflow/subscriptions/{PAYMENT_QUEUE}");
    let messages = take_all(&mut subscriber, &queue).await;
    let spoil = |message: PubsubMessage| {
        let spoiled = message.ordering_key == order.order_id;
        let data = if spoiled { "not a message".into() } else { message.data.clone() };
        PubsubMessage { message_id: String::new(), publish_time: None, data, ..message }
    };
    let request = PublishRequest { topic: TOPIC.into(), messages: messages.into_iter().map(spoil).collect() };
    PublisherClient::new(stack.channel(Part::Broker)).publish(request).await.unwrap();
    stack.start_part(Part::PaymentService).await;
    stack.reaches(&healthy.order_id, OrderStatus::Paid).await;

    let broker = stack.url(Part::Broker);
    let deadline = Instant::now() + DEADLINE;
    // notification-service has seen the healthy event before; it sets the spoiled copy aside as well.
    while dead_letters::list(&broker).await.unwrap().len() < 2 {
        assert!(Instant::now() < deadline, "{:#?}", stack.output());
        time::sleep(POLL).await;
    }
    let verdict = audit::run(&stack.addresses(), Duration::ZERO).await.unwrap();
    assert_eq!((verdict.sums.pending, verdict.sums.dead_lettered), (0, 1), "{}", verdict.table());
    assert!(!verdict.is_balanced(), "a dead letter is no balance");

    let letters = dead_letters::list(&broker).await.unwrap();
    let by_source: HashMap<&str, &str> = letters.iter().map(|letter| (letter.source(), letter.id())).collect();
    let table = stack.succeed(&["dead-letters", "list"]).await;
    assert!(table.contains(PAYMENT_QUEUE) && table.contains(&order.order_id), "{table}");
    let poisoned = by_source[PAYMENT_QUEUE];
    let shown = stack.succeed(&["dead-letters", "show", poisoned]).await;
    assert!(shown.contains("payload_problem"), "{shown}");
    // What the order is about, the operator reads at order-service.
    let payload = serde_json::json!({
        "order_id": order.order_id,
        "customer_id": order.customer_id,
        "customer_email": order.customer_email,
        "placed": { "total": { "currency_code": "EUR", "amount_minor": "1299" }, "payment_token": "tok_visa" },
    });
    let file = stack.folder().join("mended.json");
    std::fs::write(&file, payload.to_string()).unwrap();
    let said = stack.succeed(&["dead-letters", "mend", poisoned, "--payload", file.to_str().unwrap()]).await;
    let mended = said.split_whitespace().next().unwrap();
    assert_ne!(mended, poisoned);
    stack.succeed(&["dead-letters", "redrive", mended]).await;
    stack.reaches(&order.order_id, OrderStatus::Paid).await;
    stack.succeed(&["dead-letters", "discard", by_source["notification-service.order-events"]]).await;
    let sums = stack.balances().await.sums;
    assert_eq!((sums.paid, sums.captured, sums.dead_letters), (2, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_each_share_the_work_and_the_others_take_over_when_one_is_killed() {
    let several = "payment-service=2,notification-service=2,invoice-worker=2";
    let stack = Stack::start_with(&["--instances", several]).await;
    // One alone could take everything before the other one listens.
    stack.wait_for_queue(PAYMENT_QUEUE, |queue| queue.consumers == 2).await;
    stack.succeed(&["place", "--orders", "150", "--patience", "0s"]).await;
    stack.wait_for_queue(PAYMENT_QUEUE, |queue| queue.backlog_messages == 0).await;
    for instance in ["payment-service", "payment-service-2"] {
        let log = std::fs::read_to_string(stack.folder().join(format!("logs/{instance}.log"))).unwrap();
        assert!(log.contains("an order was charged"), "{instance} has its share of the work: {log}");
    }
    for instance in ["payment-service", "notification-service-2", "invoice-worker"] {
        stack.succeed(&["kill", instance]).await;
    }
    stack.succeed(&["place", "--orders", "50", "--patience", "0s"]).await;
    // What the killed ones had in hand goes to the others; the one whose books are asked for comes back last.
    stack.wait_for_queue(PAYMENT_QUEUE, |queue| queue.backlog_messages == 0).await;
    stack.start_part(Part::PaymentService).await;
    let sums = stack.balances().await.sums;
    assert_eq!((sums.paid, sums.captured, sums.invoices, sums.notifications), (200, 200, 200, 800));
}
