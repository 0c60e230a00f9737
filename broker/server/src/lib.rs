//! A durable message broker that speaks the Google Cloud Pub/Sub v1 gRPC API.
