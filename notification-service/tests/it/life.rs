use notification_service::{Error, Service};
use orderflow_proto::orderflow::notification::v1::WatchNotificationsRequest;
use tonic::Code;

use crate::harness::{Running, config, within};

#[tokio::test]
async fn a_stopping_service_ends_its_streams_and_itself() {
    let mut service = Running::start_with(0).await;
    let request = WatchNotificationsRequest { customer_id: "ada".to_owned(), after_number: 0, ..Default::default() };
    let mut stream = service.client.watch_notifications(request).await.unwrap().into_inner();
    service.token.cancel();
    assert_eq!(within(stream.message()).await.unwrap_err().code(), Code::Unavailable);
    service.stopped().await.unwrap();
}

#[tokio::test]
async fn a_bad_configuration_is_refused_whole_and_names_its_variables() {
    let mut bad = config(&["--database-url", "sqlite://", "--grace-ms", "600001"]);
    bad.broker.broker_url = "broker:8085".to_owned();
    let error = Service::open(bad).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)));
    for name in ["NOTIFICATION_DATABASE_URL", "SHUTDOWN_GRACE_MS", "BROKER_URL"] {
        assert!(error.to_string().contains(name), "{name} is not in: {error}");
    }
}
