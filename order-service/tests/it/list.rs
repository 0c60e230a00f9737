use orderflow_proto::orderflow::order::v1::{ListOrdersRequest, OrderStatus, PlaceOrderRequest};
use tonic::Code;

use crate::harness::{Running, line, request};

/// Places orders for two customers in turn and gives their ids, newest first.
async fn place(service: &mut Running, count: usize) -> Vec<(String, String)> {
    let mut placed = Vec::new();
    for number in 0..count {
        let customer_id = ["ada", "bob"][number % 2].to_owned();
        let request = PlaceOrderRequest { customer_id, ..request(&format!("k-{number}")) };
        let order = service.client.place_order(request).await.unwrap().into_inner().order.unwrap();
        placed.push((order.customer_id, order.order_id));
    }
    placed.reverse();
    placed
}

/// The ids on all pages.
async fn pages(service: &mut Running, mut request: ListOrdersRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = service.client.list_orders(request.clone()).await.unwrap().into_inner();
        pages.push(page.orders.into_iter().map(|order| order.order_id).collect());
        if page.next_page_token.is_empty() {
            return pages;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn pages_are_complete_and_newest_first() {
    let mut service = Running::start().await;
    let placed = place(&mut service, 6).await;
    let of = |customer: &str| -> Vec<String> {
        placed.iter().filter(|(owner, _)| owner == customer).map(|(_, id)| id.clone()).collect()
    };
    let all: Vec<String> = placed.iter().map(|(_, id)| id.clone()).collect();
    let (ada, pending, paid) = ("ada".to_owned(), OrderStatus::PendingPayment.into(), OrderStatus::Paid.into());
    let table = [
        (ListOrdersRequest { page_size: 4, ..Default::default() }, vec![all[..4].to_vec(), all[4..].to_vec()]),
        // A last page that is full has no next one.
        (ListOrdersRequest { page_size: 3, ..Default::default() }, vec![all[..3].to_vec(), all[3..].to_vec()]),
        (ListOrdersRequest::default(), vec![all.clone()]),
        (ListOrdersRequest { page_size: i32::MAX, ..Default::default() }, vec![all.clone()]),
        (
            ListOrdersRequest { customer_id: ada.clone(), page_size: 2, ..Default::default() },
            vec![of("ada")[..2].to_vec(), of("ada")[2..].to_vec()],
        ),
        (ListOrdersRequest { status: pending, ..Default::default() }, vec![all.clone()]),
        (ListOrdersRequest { status: OrderStatus::Cancelled.into(), ..Default::default() }, vec![vec![]]),
        (ListOrdersRequest { status: OrderStatus::Refunded.into(), ..Default::default() }, vec![vec![]]),
        (ListOrdersRequest { customer_id: ada.clone(), status: pending, ..Default::default() }, vec![of("ada")]),
        (ListOrdersRequest { customer_id: ada, status: paid, ..Default::default() }, vec![vec![]]),
        (ListOrdersRequest { status: paid, ..Default::default() }, vec![vec![]]),
        (ListOrdersRequest { customer_id: "nobody".to_owned(), ..Default::default() }, vec![vec![]]),
    ];
    for (request, expected) in table {
        assert_eq!(pages(&mut service, request.clone()).await, expected, "{request:?}");
    }
}

#[tokio::test]
async fn a_token_belongs_to_its_filters() {
    let mut service = Running::start().await;
    place(&mut service, 4).await;
    let ada = ListOrdersRequest { customer_id: "ada".to_owned(), page_size: 1, ..Default::default() };
    let page_token = service.client.list_orders(ada.clone()).await.unwrap().into_inner().next_page_token;
    let others = [
        ListOrdersRequest { customer_id: "bob".to_owned(), page_token: page_token.clone(), ..ada.clone() },
        ListOrdersRequest { customer_id: String::new(), page_token: page_token.clone(), ..ada.clone() },
        ListOrdersRequest { status: OrderStatus::Paid.into(), page_token: page_token.clone(), ..ada.clone() },
    ];
    for other in others {
        let status = service.client.list_orders(other).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    // The size of the page is no filter.
    let more = ListOrdersRequest { page_token, page_size: 5, ..ada };
    assert_eq!(service.client.list_orders(more).await.unwrap().into_inner().orders.len(), 1);
}

#[tokio::test]
async fn a_page_of_large_orders_stays_below_what_clients_take() {
    let mut service = Running::start().await;
    let requests: Vec<_> = (0..200)
        .map(|number| {
            let mut client = service.client.clone();
            // 64 characters of 4 bytes each: 200 such orders are more than 4 MiB.
            let lines = vec![line(&"🫖".repeat(64), 1, "EUR", 1); 100];
            let request = PlaceOrderRequest { lines, ..request(&format!("k-{number}")) };
            tokio::spawn(async move { client.place_order(request).await.unwrap() })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    let pages = pages(&mut service, ListOrdersRequest { page_size: 1_000, ..Default::default() }).await;
    assert!(pages.len() > 1);
    let mut ids = pages.concat();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    assert!(ids.is_sorted_by(|newer, older| newer > older));
}
