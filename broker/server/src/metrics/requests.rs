//! What comes in by gRPC: how much, with which outcome, how long it took.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use orderflow_proto::DESCRIPTORS;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tonic::Code;

use crate::edge::Dialect;

/// The bounds of what requests are sorted into, in seconds. Streams live long and are in the last ones.
const SECONDS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];
/// What a method is called that no service here has: callers must not be able to make the page grow.
const UNKNOWN: &str = "unknown";

type Method = [(&'static str, &'static str); 1];
type Outcome = [(&'static str, &'static str); 2];

/// The requests that were answered.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    handled: Family<Outcome, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { handled: Family::default(), seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)) }
    }
}

impl Requests {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("rpc_requests", "RPCs that have ended", self.handled.clone());
        registry.register("rpc_duration_seconds", "Time that RPCs took, streams as a whole", self.seconds.clone());
    }

    fn note(&self, method: &'static str, code: Code, begun: Instant) {
        self.handled.get_or_create(&[("method", method), ("code", code_name(code))]).inc();
        self.seconds.get_or_create(&[("method", method)]).observe(begun.elapsed().as_secs_f64());
    }
}

/// Counts a request when its answer has ended. To be put around all services.
pub(crate) async fn count(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    if Dialect::of(request.headers()) != Dialect::Grpc {
        return next.run(request).await;
    }
    let mut counting = Counting { method: method(request.uri().path()), begun: Instant::now(), code: None, requests };
    let response = next.run(request).await;
    // An answer that is nothing but an error has its code in front, any other one in its trailers.
    counting.code = code_of(response.headers());
    response.map(|body| Body::new(Counted { counting, body }))
}

/// Notes the request when it is dropped: its answer has ended then, or nobody waits for it any more.
struct Counting {
    requests: Requests,
    method: &'static str,
    begun: Instant,
    code: Option<Code>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.requests.note(self.method, self.code.unwrap_or(Code::Cancelled), self.begun);
    }
}

struct Counted {
    counting: Counting,
    body: Body,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(code) = frame.trailers_ref().and_then(code_of)
        {
            self.counting.code = Some(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// The method of a path like `/package.Service/Method`.
fn method(path: &str) -> &'static str {
    static METHODS: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let known =
        METHODS.get_or_init(|| methods().into_iter().map(|method| &*Box::leak(method.into_boxed_str())).collect());
    known.get(path.trim_start_matches('/')).copied().unwrap_or(UNKNOWN)
}

/// All that are declared; they are as many as the .proto files have.
fn methods() -> Vec<String> {
    let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
    let sets = [DESCRIPTORS, health].into_iter().filter_map(|set| prost_types::FileDescriptorSet::decode(set).ok());
    let files = sets.flat_map(|set| set.file);
    let of_file = |file: prost_types::FileDescriptorProto| {
        let package = file.package().to_owned();
        let of_service = move |service: &prost_types::ServiceDescriptorProto| {
            let name = format!("{package}.{}", service.name());
            service.method.iter().map(move |method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
        };
        file.service.iter().flat_map(of_service).collect::<Vec<_>>()
    };
    files.flat_map(of_file).collect()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_nobody_declared_has_no_name_of_its_own() {
        assert_eq!(method("/google.pubsub.v1.Publisher/Publish"), "google.pubsub.v1.Publisher/Publish");
        assert_eq!(method("/grpc.health.v1.Health/Check"), "grpc.health.v1.Health/Check");
        for path in ["/made.up/Name", "", "/", "/google.pubsub.v1.Publisher", "/google.pubsub.v1.Publisher/Publish/"] {
            assert_eq!(method(path), UNKNOWN, "{path}");
        }
    }
}
