//! From a request to its message, for fuzzers.

use std::sync::OnceLock;

use axum::body::Bytes;
use axum::http::{Method, Uri};
use orderflow_proto::DESCRIPTORS;
use prost::Message as _;
use prost_reflect::DescriptorPool;

/// The RPC that a request stands for, and its message as it goes to the service.
pub(in crate::edge) fn understand(method: &Method, uri: &Uri, body: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let found = super::table::find(method, uri.path())?;
    let pool = POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).expect("our own declarations"));
    let (service, name) = found.rpc.split_once('/')?;
    let rpc = pool.get_service_by_name(service)?.methods().find(|rpc| rpc.name() == name)?;
    let query = uri.query().unwrap_or_default();
    super::wants_enum_numbers(uri);
    let message = super::message(&rpc, &found, &Bytes::copy_from_slice(body), query).ok()?;
    Some((found.rpc, message.encode_to_vec()))
}
