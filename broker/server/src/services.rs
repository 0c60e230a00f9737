//! Everything that is served of an engine, whoever asks.

use orderflow_proto::DESCRIPTORS;
use orderflow_proto::google::iam::v1::iam_policy_server::IamPolicyServer;
use orderflow_proto::google::pubsub::v1::schema_service_server::SchemaServiceServer;
use orderflow_proto::google::pubsub::v1::subscriber_server::SubscriberServer;
use orderflow_proto::orderflow::broker::v1::broker_service_server::BrokerServiceServer;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::edge::{Iam, Inspector, PublisherFace, REQUEST_BYTES_MAX, Schemas, Subscriber, with_rest};
use crate::engine::embedded::Embedded;

type PublisherService = PublisherFace<Embedded>;
type SubscriberService = SubscriberServer<Subscriber<Embedded>>;
type SchemasService = SchemaServiceServer<Schemas>;
type IamService = IamPolicyServer<Iam<Embedded>>;
type InspectorService = BrokerServiceServer<Inspector<Embedded>>;

/// What reflection lists and health answers for.
const SERVICES: [&str; 5] =
    [PublisherService::NAME, SubscriberService::NAME, SchemasService::NAME, IamService::NAME, InspectorService::NAME];

/// The services of an engine. Streams and waiting pulls end when `stop` is cancelled.
pub(crate) fn routes(engine: &Embedded, stop: &CancellationToken) -> Routes {
    let publisher = PublisherFace::new(engine.clone());
    let subscriber = SubscriberServer::new(Subscriber::new(engine.clone(), stop.clone()))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip);
    let inspector = BrokerServiceServer::new(Inspector::new(engine.clone(), stop.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = || SERVICES.into_iter().fold(reflection(), |builder, service| builder.with_service_name(service));
    let mut routes = Routes::default()
        .add_service(publisher)
        .add_service(subscriber)
        .add_service(SchemaServiceServer::new(Schemas))
        .add_service(IamPolicyServer::new(Iam::new(engine.clone())))
        .add_service(inspector);
    match reflection().build_v1() {
        Ok(service) => routes = routes.add_service(service),
        Err(error) => tracing::error!(%error, "Server reflection is not available."),
    }
    if let Ok(service) = reflection().build_v1alpha() {
        routes = routes.add_service(service);
    }
    let without_rest = routes.clone();
    with_rest(routes).unwrap_or_else(|error| {
        tracing::error!(%error, "The REST face is not available.");
        without_rest
    })
}

/// Tells the clients of the health service.
pub(crate) async fn set_serving(reporter: &HealthReporter, is_serving: bool) {
    let status =
        if is_serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
    for service in SERVICES.into_iter().chain([""]) {
        reporter.set_service_status(service, status).await;
    }
}
