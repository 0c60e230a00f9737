use orderflow_proto::orderflow::payment::v1::{
    ChargeRequest, GetPaymentRequest, ListPaymentsRequest, ListPaymentsResponse, PaymentStatus,
};
use orderflow_proto::orderflow::r#type::v1::Money;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Running, Stored};

const ONE: &str = "0190163d-8694-739b-aea5-966c26f8ad91";
const TWO: &str = "0190163d-8694-739b-aea5-966c26f8ad92";
const THREE: &str = "0190163d-8694-739b-aea5-966c26f8ad93";
const FOUR: &str = "0190163d-8694-739b-aea5-966c26f8ad94";

/// Two and three ended in the same microsecond.
const STORED: [Stored; 4] = [
    Stored { order_id: ONE, status: "CAPTURED", created_at_us: 1_700_000_000_000_001 },
    Stored { order_id: TWO, status: "DECLINED", created_at_us: 1_700_000_000_000_002 },
    Stored { order_id: THREE, status: "CAPTURED", created_at_us: 1_700_000_000_000_002 },
    Stored { order_id: FOUR, status: "CAPTURED", created_at_us: 1_700_000_000_000_003 },
];

#[track_caller]
fn assert_violations(status: &Status, expected: &[&str]) {
    assert_eq!(status.code(), Code::InvalidArgument, "{expected:?}");
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(), expected);
}

/// The ids on all pages.
async fn pages(service: &mut Running, mut request: ListPaymentsRequest) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let ListPaymentsResponse { payments, next_page_token } =
            service.client.list_payments(request.clone()).await.unwrap().into_inner();
        pages.push(payments.into_iter().map(|payment| payment.order_id).collect());
        if next_page_token.is_empty() {
            return pages;
        }
        request.page_token = next_page_token;
    }
}

#[tokio::test]
async fn stored_payments_are_told_as_they_are() {
    let mut service = Running::start_with(&STORED).await;
    let request = GetPaymentRequest { order_id: ONE.to_owned() };
    let captured = service.client.get_payment(request).await.unwrap().into_inner().payment.unwrap();
    assert_eq!((captured.order_id.as_str(), captured.customer_id.as_str()), (ONE, "ada"));
    assert_eq!(captured.amount, Some(Money { currency_code: "EUR".to_owned(), amount_minor: 1_200 }));
    assert_eq!((captured.status(), captured.charge_id.as_str()), (PaymentStatus::Captured, "ch_1"));
    let time = captured.create_time.unwrap();
    assert_eq!((time.seconds, time.nanos), (1_700_000_000, 1_000));
    assert_eq!((captured.attempt, captured.capture_time, captured.refund_time), (1, Some(time), None));

    let request = GetPaymentRequest { order_id: TWO.to_owned() };
    let declined = service.client.get_payment(request).await.unwrap().into_inner().payment.unwrap();
    assert_eq!((declined.status(), declined.decline_reason.as_str()), (PaymentStatus::Declined, "stolen_card"));
    assert_eq!(declined.charge_id, "");
}

#[tokio::test]
async fn pages_are_complete_and_newest_first() {
    let mut service = Running::start_with(&STORED).await;
    let captured = PaymentStatus::Captured.into();
    let table: [(ListPaymentsRequest, Vec<Vec<&str>>); 6] = [
        (ListPaymentsRequest::default(), vec![vec![FOUR, THREE, TWO, ONE]]),
        (ListPaymentsRequest { page_size: 2, ..Default::default() }, vec![vec![FOUR, THREE], vec![TWO, ONE]]),
        (
            ListPaymentsRequest { page_size: 1, ..Default::default() },
            vec![vec![FOUR], vec![THREE], vec![TWO], vec![ONE]],
        ),
        (
            ListPaymentsRequest { status: captured, page_size: 2, ..Default::default() },
            vec![vec![FOUR, THREE], vec![ONE]],
        ),
        (ListPaymentsRequest { status: PaymentStatus::Declined.into(), ..Default::default() }, vec![vec![TWO]]),
        (ListPaymentsRequest { status: PaymentStatus::Refunded.into(), ..Default::default() }, vec![vec![]]),
    ];
    for (request, expected) in table {
        assert_eq!(pages(&mut service, request.clone()).await, expected, "{request:?}");
    }
}

#[tokio::test]
async fn bad_requests_are_refused_with_every_violation() {
    let mut service = Running::start_with(&STORED).await;
    for id in ["", "42", "' OR 1=1 --"] {
        let status = service.client.get_payment(GetPaymentRequest { order_id: id.to_owned() }).await.unwrap_err();
        assert_violations(&status, &["order_id"]);
    }
    let token = ListPaymentsRequest { page_size: 1, ..Default::default() };
    let page_token = service.client.list_payments(token).await.unwrap().into_inner().next_page_token;
    let other_filter = ListPaymentsRequest { status: PaymentStatus::Captured.into(), page_token, ..Default::default() };
    let table: [(ListPaymentsRequest, &[&str]); 5] = [
        (ListPaymentsRequest { status: 99, ..Default::default() }, &["status"]),
        (ListPaymentsRequest { page_size: -1, ..Default::default() }, &["page_size"]),
        (ListPaymentsRequest { page_token: "garbage".to_owned(), ..Default::default() }, &["page_token"]),
        (other_filter, &["page_token"]),
        (
            ListPaymentsRequest { status: -1, page_size: -1, page_token: "?".to_owned() },
            &["status", "page_size", "page_token"],
        ),
    ];
    for (bad, fields) in table {
        let status = service.client.list_payments(bad).await.unwrap_err();
        assert_violations(&status, fields);
    }
    assert_eq!(pages(&mut service, ListPaymentsRequest::default()).await.concat().len(), STORED.len());
}

#[tokio::test]
async fn a_charge_gets_no_outcome_while_the_acquirer_is_down() {
    let mut service = Running::start_with(&STORED).await;
    let request = ChargeRequest {
        order_id: "0190163d-8694-739b-aea5-966c26f8ad95".to_owned(),
        customer_id: "ada".to_owned(),
        amount: Some(Money { currency_code: "EUR".to_owned(), amount_minor: 1 }),
        payment_token: "tok_visa".to_owned(),
        attempt: 1,
    };
    let status = service.client.charge(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "ACQUIRER_UNAVAILABLE");
    let mut hurried = tonic::Request::new(request.clone());
    hurried.set_timeout(std::time::Duration::from_nanos(1));
    let status = service.client.charge(hurried).await.unwrap_err();
    let codes = [Code::DeadlineExceeded, Code::Cancelled, Code::Unavailable];
    assert!(codes.contains(&status.code()), "{status:?}");
    // It was asked in vain, and that is seen.
    let asked = GetPaymentRequest { order_id: request.order_id };
    let payment = service.client.get_payment(asked).await.unwrap().into_inner().payment.unwrap();
    assert_eq!((payment.status(), payment.attempts[0].detail.as_str()), (PaymentStatus::Pending, "no connection"));
}

#[tokio::test]
async fn a_payment_that_has_not_ended_is_not_found() {
    let mut service = Running::start_with(&[]).await;
    let status = service.client.get_payment(GetPaymentRequest { order_id: ONE.to_owned() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["order_id"].as_str()), ("PAYMENT_NOT_FOUND", ONE));
}
