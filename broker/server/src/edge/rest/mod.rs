//! The REST face of the API: JSON over HTTP/1.1 or 2, for clients that administer that way.
//!
//! **Invariant:** it knows no RPC by itself. A request becomes the message that its RPC takes, goes through the same
//! gRPC service as every other, and the answer becomes JSON, by what the .proto files say.

mod codec;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
pub(super) mod problem;
mod table;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::Router;
use orderflow_proto::DESCRIPTORS;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage,
    SerializeOptions, Value,
};
use tonic::service::Routes;
use tonic::{Code, Status};

use super::dialect::Dialect;
use super::parse::REQUEST_BYTES_MAX;
use super::status::Invalid;
use codec::DynamicCodec;
use table::{Found, Place};

/// JSON holds bytes in base64, so that a request may be a third longer than its message.
const BODY_BYTES_MAX: usize = REQUEST_BYTES_MAX / 3 * 4;

/// Adds the REST face to the gRPC services: it gets what none of them is asked for.
pub(crate) fn with_rest(routes: Routes) -> Result<Routes, prost_reflect::DescriptorError> {
    let rest = Rest { pool: DescriptorPool::decode(DESCRIPTORS)?, services: routes.clone().prepare() };
    let router: Router = routes.into_axum_router();
    Ok(router.fallback(move |request: Request| rest.clone().answer(request)).into())
}

#[derive(Clone, Debug)]
struct Rest {
    pool: DescriptorPool,
    services: Routes,
}

impl Rest {
    async fn answer(self, request: Request) -> Response {
        if Dialect::of(request.headers()) == Dialect::Grpc {
            return Dialect::Grpc.refusal(Status::unimplemented("there is no such service"));
        }
        match self.call(request).await {
            Ok(answer) => json(StatusCode::OK, answer),
            Err(status) => problem::response(&status),
        }
    }

    async fn call(&self, request: Request) -> Result<Vec<u8>, Status> {
        let (parts, body) = request.into_parts();
        let found = table::find(&parts.method, parts.uri.path()).ok_or_else(|| unknown(&parts.method, &parts.uri))?;
        let method = self.method(found.rpc)?;
        let body = axum::body::to_bytes(body, BODY_BYTES_MAX);
        let body = body.await.map_err(|_| Invalid::new("body", "can't be read whole, or is too long"))?;
        let message = message(&method, &found, &body, parts.uri.query().unwrap_or_default())?;
        let path: PathAndQuery = format!("/{}", found.rpc).parse().map_err(|_| Status::internal("internal error"))?;
        let mut grpc = tonic::client::Grpc::new(self.services.clone());
        grpc.ready().await.map_err(|_| Status::internal("internal error"))?;
        let answer = grpc.unary(tonic::Request::new(message), path, DynamicCodec::new(method.output())).await?;
        let mut bytes = Vec::new();
        let options = SerializeOptions::new().use_enum_numbers(wants_enum_numbers(&parts.uri));
        answer
            .into_inner()
            .serialize_with_options(&mut serde_json::Serializer::new(&mut bytes), &options)
            .map_err(|_| Status::internal("internal error"))?;
        Ok(bytes)
    }

    /// The RPC of a path like `package.Service/Method`, which the table holds only if it is declared.
    fn method(&self, rpc: &str) -> Result<MethodDescriptor, Status> {
        let find = || {
            let (service, method) = rpc.split_once('/')?;
            self.pool.get_service_by_name(service)?.methods().find(|found| found.name() == method)
        };
        find().ok_or_else(|| Status::internal("internal error"))
    }
}

/// What the RPC is asked: the body or the query, and the name that the path holds.
fn message(method: &MethodDescriptor, found: &Found, body: &Bytes, query: &str) -> Result<DynamicMessage, Invalid> {
    let text = match found.rest {
        Place::Query => query_json(&method.input(), query).to_string().into(),
        Place::Body if body.is_empty() => Bytes::from_static(b"{}"),
        Place::Body => body.clone(),
        Place::BodyOf(field) => {
            let mut whole = query_json(&method.input(), query);
            whole[field] = serde_json::from_slice(body).map_err(|error| Invalid::new("body", error))?;
            whole.to_string().into()
        }
    };
    let mut json = serde_json::Deserializer::from_slice(&text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let parsed = DynamicMessage::deserialize_with_options(method.input(), &mut json, &options)
        .and_then(|message| json.end().map(|()| message));
    let mut message =
        parsed.map_err(|error| Invalid::new(if found.rest == Place::Query { "query" } else { "body" }, error))?;
    set(&mut message, found.field, found.name.clone());
    Ok(message)
}

/// Sets a field by its path, like `topic.name`.
fn set(message: &mut DynamicMessage, path: &str, name: String) {
    match path.split_once('.') {
        Some((parent, rest)) => {
            let Some(field) = message.descriptor().get_field_by_name(parent) else { return };
            if let Value::Message(inner) = message.get_field_mut(&field) {
                set(inner, rest, name);
            }
        }
        None => message.set_field_by_name(path, Value::String(name)),
    }
}

/// The parameters of a query as the JSON object that the body would have been. Numbers may stand there as texts, and
/// `a.b=c` stands for a field within a field.
fn query_json(of: &MessageDescriptor, query: &str) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| !is_system_parameter(key)) {
        match key.split_once('.') {
            Some((parent, field)) => {
                let inner = object.entry(parent).or_insert_with(|| serde_json::Value::Object(Default::default()));
                if let Some(inner) = inner.as_object_mut() {
                    inner.insert(field.to_owned(), value.into_owned().into());
                }
            }
            None => {
                let value = query_value(of, &key, value.into_owned());
                object.insert(key.into_owned(), value);
            }
        }
    }
    serde_json::Value::Object(object)
}

/// A parameter as JSON: a text, but for the number of an enum's value.
fn query_value(of: &MessageDescriptor, key: &str, value: String) -> serde_json::Value {
    let field = of.get_field_by_json_name(key).or_else(|| of.get_field_by_name(key));
    let is_enum = field.is_some_and(|field| field.kind().as_enum().is_some());
    match value.parse::<i32>() {
        Ok(number) if is_enum => number.into(),
        _ => value.into(),
    }
}

/// What Google's API clients add to every request, and what says nothing about the RPC.
fn is_system_parameter(key: &str) -> bool {
    key.starts_with('$') || ["alt", "key", "prettyPrint", "quotaUser", "access_token", "fields"].contains(&key)
}

fn wants_enum_numbers(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .any(|(key, value)| matches!(key.as_ref(), "$alt" | "alt") && value.contains("enum-encoding=int"))
}

fn unknown(method: &Method, uri: &Uri) -> Status {
    Status::new(Code::NotFound, format!("`{method} {}` is not a call of this API", uri.path()))
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}
