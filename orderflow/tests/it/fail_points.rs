//! Each fail point is really passed: armed, it kills its process, and nothing is lost by that.

use std::path::PathBuf;
use std::time::Duration;

use fail_points::Point;
use orderflow::lab::{Lab, Options};
use orderflow::{Part, audit, place};
use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;
use orderflow_proto::orderflow::order::v1::{OrderLine, PlaceOrderRequest};
use orderflow_proto::orderflow::r#type::v1::Money;
use tokio::time;
use tonic::transport::Endpoint;

use crate::harness::{DEADLINE, eventually, state_of};

/// Whose process passes it.
fn part_of(point: Point) -> Part {
    match point {
        Point::OrderCommitted | Point::OrderSettled | Point::RelayPublished => Part::OrderService,
        Point::PaymentCharged | Point::PaymentCommitted => Part::PaymentService,
        Point::NotificationCommitted => Part::NotificationService,
        Point::InvoicePublished => Part::InvoiceWorker,
        Point::AcquirerCommitted => Part::Acquirer,
        Point::BrokerAppended | Point::BrokerSynced | Point::BrokerAcked => Part::Broker,
    }
}

/// Places orders until somebody says stop, as a customer who asks again.
async fn keep_ordering(url: String, key: &str) {
    let client = OrderServiceClient::new(Endpoint::from_shared(url).unwrap().connect_lazy());
    for number in 0.. {
        let unit_price = Some(Money { currency_code: "EUR".into(), amount_minor: 1299 });
        let request = PlaceOrderRequest {
            idempotency_key: format!("{key}-{number}"),
            customer_id: "alice".into(),
            lines: vec![OrderLine { sku: "tea".into(), quantity: 1, unit_price }],
            payment_token: "tok_visa".into(),
            ..Default::default()
        };
        place::place(client.clone(), request, DEADLINE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fail_point_kills_its_process_and_nothing_is_lost_by_it() {
    let executable = Some(PathBuf::from(env!("CARGO_BIN_EXE_orderflow")));
    let lab = Lab::start(Options { executable, ..Options::default() }).await.unwrap();
    for point in Point::ALL {
        let part = part_of(point);
        lab.kill(part).await.unwrap();
        // The broker passes its own while it starts, too; a later passing is under load.
        let armed = [("FAIL_POINTS".to_owned(), format!("{}=kill@3", point.name()))];
        let started = lab.start_with(part, &armed).await;
        let died = async {
            if started.is_ok() {
                lab.ended(part).await;
            }
        };
        let ordering = keep_ordering(lab.entrance(), point.name());
        let in_time = time::timeout(DEADLINE, async {
            tokio::select! { () = died => {}, () = ordering => {} }
        });
        in_time.await.unwrap_or_else(|_| panic!("{} is never passed", point.name()));
        // The log is written by a thread of the lab, from what the process has said.
        let (log_file, said) = (lab.log_file(part), format!("fail point {}", point.name()));
        eventually(&said, || std::fs::read_to_string(&log_file).is_ok_and(|log| log.contains(&said))).await;
        lab.start_part(part).await.unwrap();
    }
    let verdict = audit::run(&lab.addresses(), DEADLINE).await.unwrap();
    assert!(verdict.is_balanced(), "{}", verdict.table());
    assert!(verdict.sums.paid > 0);
    lab.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_lab_is_frozen_and_goes_on_and_the_folder_goes_with_the_lab() {
    let executable = Some(PathBuf::from(env!("CARGO_BIN_EXE_orderflow")));
    let lab = Lab::start(Options { executable, proxied: true, ..Options::default() }).await.unwrap();
    let (folder, frozen) = (lab.folder().to_owned(), lab.process(Part::OrderService));
    lab.pause(Part::OrderService).unwrap();
    eventually("it is frozen", || frozen.and_then(state_of) == Some('T')).await;
    let ordering = keep_ordering(lab.entrance(), "frozen");
    // Nobody else suffers from it.
    lab.kill(Part::InvoiceWorker).await.unwrap();
    assert_eq!(lab.process(Part::InvoiceWorker), None);
    lab.start_part(Part::InvoiceWorker).await.unwrap();
    lab.resume(Part::OrderService).unwrap();
    let balanced = async {
        loop {
            match audit::run(&lab.addresses(), Duration::ZERO).await {
                Ok(verdict) if verdict.sums.paid > 0 => return,
                _ => time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    time::timeout(DEADLINE, async {
        tokio::select! { () = balanced => {}, () = ordering => {} }
    })
    .await
    .unwrap();
    assert_eq!(lab.process(Part::OrderService), frozen);
    lab.end().await.unwrap();
    assert!(!folder.exists());
}
