//! Carries a trace on, in the form of the W3C's Trace Context: in gRPC metadata, HTTP headers and message attributes.

use std::collections::{BTreeMap, HashMap};

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Status;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The longest value that travels on, in bytes. The W3C asks for 512 at least, and no message attribute may hold more than
/// 1,024: a caller's long `tracestate` must not keep an event from being published.
const VALUE_BYTES_MAX: usize = 512;

/// Lets a span follow what came in, and gives it the field `trace_id`, which it has to have declared as empty.
pub(crate) fn follow(span: &Span, carrier: &dyn Extractor) {
    if span.is_disabled() {
        return;
    }
    let context = TraceContextPropagator::new().extract(carrier);
    // An error says that nobody listens to spans of this process, and then there is nothing to follow.
    if context.span().span_context().is_valid() && span.set_parent(context).is_err() {
        return;
    }
    let context = span.context();
    let in_trace = context.span();
    if in_trace.span_context().is_valid() {
        span.record("trace_id", tracing::field::display(in_trace.span_context().trace_id()));
    }
}

/// `traceparent`, and `tracestate` where there is one, for whatever leaves from here. Empty outside a trace.
pub fn headers() -> BTreeMap<String, String> {
    let mut headers = Headers::default();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut headers);
    headers.0
}

/// An interceptor that gives a gRPC call the trace of its caller: `Client::with_interceptor(channel, trace::carry)`.
///
/// # Errors
/// None; the type is what an interceptor has.
#[allow(clippy::result_large_err, reason = "tonic's interceptors have this type")]
pub fn carry(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
    for (name, value) in headers() {
        let name = tonic::metadata::MetadataKey::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value.parse()) {
            request.metadata_mut().insert::<tonic::metadata::MetadataKey<tonic::metadata::Ascii>>(name, value);
        }
    }
    Ok(request)
}

/// What a request brings.
pub(crate) struct Incoming<'a>(pub(crate) &'a http::HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// What a message brings.
pub(crate) struct Attributes<'a>(pub(crate) &'a HashMap<String, String>);

impl Extractor for Attributes<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

#[derive(Default)]
struct Headers(BTreeMap<String, String>);

impl Injector for Headers {
    fn set(&mut self, key: &str, value: String) {
        // The propagator sets an empty `tracestate` as well, which tells nothing.
        if (1..=VALUE_BYTES_MAX).contains(&value.len()) {
            self.0.insert(key.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::field::Empty;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn traced(work: impl FnOnce()) {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    }

    fn trace_id(traceparent: &str) -> &str {
        traceparent.split('-').nth(1).unwrap()
    }

    #[test]
    fn a_span_follows_what_came_in_and_what_leaves_belongs_to_the_same_trace() {
        traced(|| {
            let span = tracing::info_span!("message", trace_id = Empty);
            follow(&span, &Attributes(&HashMap::from([("traceparent".to_owned(), PARENT.to_owned())])));
            let left = span.in_scope(headers);
            let traceparent = &left["traceparent"];
            assert_eq!(trace_id(traceparent), trace_id(PARENT));
            assert_ne!(traceparent, PARENT, "the span that is left behind is this one, not the one before");
            assert_eq!(left.len(), 1, "an empty tracestate is left out: {left:?}");
        });
    }

    #[test]
    fn a_tracestate_travels_on_unless_it_is_too_long() {
        for (value_bytes, travels) in [(200, true), (256, false)] {
            let state = format!("a={0},b={0}", "x".repeat(value_bytes));
            let came = [("traceparent".to_owned(), PARENT.to_owned()), ("tracestate".to_owned(), state)];
            traced(|| {
                let span = tracing::info_span!("rpc", trace_id = Empty);
                follow(&span, &Attributes(&HashMap::from(came)));
                let left = span.in_scope(headers);
                assert!(left.contains_key("traceparent"));
                assert_eq!(left.contains_key("tracestate"), travels, "{value_bytes}");
            });
        }
    }

    #[test]
    fn what_follows_nothing_or_nonsense_begins_a_trace() {
        traced(|| {
            for came in [HashMap::new(), HashMap::from([("traceparent".to_owned(), "00-zero-zero-01".to_owned())])] {
                let span = tracing::info_span!("message", trace_id = Empty);
                follow(&span, &Attributes(&came));
                let left = span.in_scope(headers);
                assert_ne!(trace_id(&left["traceparent"]), "0".repeat(32));
            }
        });
    }

    #[test]
    fn a_call_carries_the_trace_of_its_caller() {
        traced(|| {
            let span = tracing::info_span!("rpc", trace_id = Empty);
            follow(
                &span,
                &Incoming(&http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("traceparent"),
                    http::HeaderValue::from_static(PARENT),
                )])),
            );
            let request = span.in_scope(|| carry(tonic::Request::new(())).unwrap());
            let carried = request.metadata().get("traceparent").unwrap().to_str().unwrap();
            assert_eq!(trace_id(carried), trace_id(PARENT));
        });
    }

    #[test]
    fn nothing_leaves_from_outside_a_trace() {
        assert!(headers().is_empty());
        traced(|| assert!(headers().is_empty()));
    }
}
