use payment_service::{Error, Service};

use crate::harness::{Running, config};

#[tokio::test]
async fn a_service_stops_when_it_is_told() {
    let service = Running::start_with(&[]).await;
    service.token.cancel();
    service.stopped().await.unwrap();
}

#[tokio::test]
async fn a_bad_configuration_is_refused_whole_and_names_its_variables() {
    let mut bad = config(&["--database-url", "payment.db", "--acquirer-timeout-ms", "9"]);
    bad.acquirer_url = "https://acquirer".to_owned();
    bad.broker.broker_url = "broker:8085".to_owned();
    let error = Service::open(bad).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)));
    let names = ["PAYMENT_DATABASE_URL", "PAYMENT_ACQUIRER_URL", "PAYMENT_ACQUIRER_TIMEOUT_MS", "BROKER_URL"];
    for name in names {
        assert!(error.to_string().contains(name), "{name} is not in: {error}");
    }
}
