use orderflow_proto::orderflow::order::v1::{GetOrderRequest, OrderStatus, PlaceOrderRequest};
use orderflow_proto::orderflow::r#type::v1::Money;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{Running, line, request};

#[tokio::test]
async fn an_order_is_accepted_while_the_broker_is_down() {
    let mut service = Running::start().await;
    let placed = service.client.place_order(request("k")).await.unwrap().into_inner().order.unwrap();
    assert_eq!(placed.total, Some(Money { currency_code: "EUR".to_owned(), amount_minor: 1_200 }));
    assert_eq!(placed.status(), OrderStatus::PendingPayment);
    assert_eq!((placed.customer_id.as_str(), &placed.lines), ("ada", &request("k").lines));
    assert_eq!(placed.create_time, placed.update_time);
    let get = GetOrderRequest { order_id: placed.order_id.clone() };
    assert_eq!(service.client.get_order(get).await.unwrap().into_inner().order, Some(placed));
}

#[tokio::test]
async fn an_accepted_order_survives_a_crash_and_its_key_is_still_known() {
    let mut service = Running::start().await;
    let placed = service.client.place_order(request("k")).await.unwrap().into_inner();
    let mut service = service.crash_and_restart().await;
    assert_eq!(service.orders().await, [placed.order.clone().unwrap()]);
    assert_eq!(service.client.place_order(request("k")).await.unwrap().into_inner(), placed);
    assert_eq!(service.orders().await.len(), 1);
}

#[tokio::test]
async fn the_same_request_again_gives_the_same_order() {
    let mut service = Running::start().await;
    let first = service.client.place_order(request("k")).await.unwrap().into_inner();
    let spelled_out = PlaceOrderRequest { payment_token: "tok_visa".to_owned(), ..request("k") };
    for again in [request("k"), spelled_out] {
        assert_eq!(service.client.place_order(again).await.unwrap().into_inner(), first);
    }
    let other = service.client.place_order(request("k-2")).await.unwrap().into_inner();
    assert_ne!(other.order.unwrap().order_id, first.order.unwrap().order_id);
    assert_eq!(service.orders().await.len(), 2);
}

#[tokio::test]
async fn fifty_requests_at_once_with_one_key_make_one_order() {
    let mut service = Running::start().await;
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let mut client = service.client.clone();
            tokio::spawn(async move { client.place_order(request("k")).await.unwrap().into_inner().order.unwrap() })
        })
        .collect();
    let mut ids = Vec::new();
    for request in requests {
        ids.push(request.await.unwrap().order_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(service.orders().await.len(), 1);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_and_changes_nothing() {
    let mut service = Running::start().await;
    let first = service.client.place_order(request("k")).await.unwrap().into_inner().order.unwrap();
    let others = [
        PlaceOrderRequest { customer_id: "bob".to_owned(), ..request("k") },
        PlaceOrderRequest { payment_token: "tok_stolen_card".to_owned(), ..request("k") },
        PlaceOrderRequest { lines: vec![line("tea", 2, "EUR", 500)], ..request("k") },
        PlaceOrderRequest { lines: vec![line("tea", 2, "USD", 500), line("cup", 1, "USD", 200)], ..request("k") },
    ];
    for other in others {
        let status = service.client.place_order(other).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(service.orders().await, std::slice::from_ref(&first));
    }
}
