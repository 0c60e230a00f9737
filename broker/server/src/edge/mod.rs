//! The edge: gRPC in front of an [`Engine`](crate::engine::Engine). What comes in is parsed whole before the engine
//! hears of it.

mod dialect;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod iam;
mod inspect;
mod mask;
mod parse;
mod publish;
mod publisher;
mod push_settings;
mod received;
mod rest;
mod schema;
mod settings;
mod status;
mod streaming_pull;
mod subscriber;

pub(crate) use dialect::Dialect;
pub(crate) use iam::Iam;
pub(crate) use inspect::Inspector;
pub(crate) use parse::REQUEST_BYTES_MAX;
pub(crate) use publish::PublisherFace;
use publisher::Publisher;
pub(crate) use rest::with_rest;
pub(crate) use schema::Schemas;
pub(crate) use settings::{subscription_config, topic_config};
pub(crate) use status::{Invalid, stopping};
pub(crate) use subscriber::Subscriber;
