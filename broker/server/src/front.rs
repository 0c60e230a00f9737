//! What a broker on a shared journal answers: with its own engine once it owns the journal, with the owner's until then.
//!
//! **Invariant:** a front knows no RPC. It forwards requests as they are, and each connection of a client has one of its
//! own to the owner, so that the owner hears at once when a client is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service;

use crate::connection::ConnectionInfo;
use crate::edge::refusal;
use crate::server::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// How long a request waits for an owner when there is none, or none that can be reached.
const OWNER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection to the owner may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Marks a request that was forwarded, so that it is not forwarded again.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("orderflow-forwarded");
/// What belongs to one connection and not to the request.
const OF_CONNECTION: [HeaderName; 4] = [CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE];

/// Who answers.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Nobody yet: who owns the journal is not known.
    Nobody,
    /// The broker at this address.
    Forward(String),
    /// This one.
    Serve(Routes),
}

/// Answers as the role of the moment says.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    role: watch::Receiver<Role>,
}

/// A client's connection to the owner, if it has one yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstream(Arc<Mutex<Option<Owner>>>);

/// An owner by its address, and the way to it.
type Owner = (String, SendRequest<Body>);

impl Front {
    pub(crate) fn new(role: watch::Receiver<Role>) -> Self {
        Self { role }
    }

    pub(crate) async fn answer(mut self, request: Request<Body>) -> Response {
        let deadline = Instant::now() + OWNER_PATIENCE;
        let connection = request.extensions().get::<ConnectionInfo>().cloned().unwrap_or_default();
        let is_forwarded = request.headers().contains_key(FORWARDED);
        loop {
            let role = self.role.borrow_and_update().clone();
            match role {
                Role::Serve(mut routes) => {
                    return routes.call(request).await.map_or_else(|never| match never {}, IntoResponse::into_response);
                }
                Role::Forward(address) if !is_forwarded => {
                    match connection.upstream.to(&address, &connection.lost).await {
                        Ok(owner) => return forward(owner, &address, request).await,
                        Err(error) => tracing::debug!(%error, address, "The owner of the journal can't be reached."),
                    }
                }
                Role::Forward(_) | Role::Nobody => {}
            }
            // The role is told again and again, so this is the pause between two tries as well.
            if !matches!(timeout_at(deadline, self.role.changed()).await, Ok(Ok(()))) {
                return refusal(request.headers(), unavailable("no broker owns the journal at the moment"));
            }
        }
    }
}

impl Upstream {
    /// A way to the owner, which ends at once when the client is lost.
    async fn to(&self, address: &str, lost: &CancellationToken) -> io::Result<SendRequest<Body>> {
        let mut place = self.0.lock().await;
        if let Some((connected, owner)) = place.as_ref()
            && connected == address
            && !owner.is_closed()
        {
            return Ok(owner.clone());
        }
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
        // Small requests must not wait for one another.
        stream.set_nodelay(true)?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await;
        let (owner, connection) = handshake.map_err(io::Error::other)?;
        // It ends with the last handle on it, and its error is the one that the requests get.
        let lost = lost.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = lost.cancelled() => {}
            }
        });
        *place = Some((address.to_owned(), owner.clone()));
        Ok(owner)
    }
}

async fn forward(mut owner: SendRequest<Body>, address: &str, request: Request<Body>) -> Response {
    let (mut parts, body) = request.into_parts();
    let headers = parts.headers.clone();
    let Some(uri) = uri(address, parts.uri.path_and_query()) else {
        return refusal(&headers, unavailable("the owner of the journal has no proper address"));
    };
    OF_CONNECTION.iter().for_each(|name| drop(parts.headers.remove(name)));
    parts.headers.insert(FORWARDED, HeaderValue::from_static("1"));
    let mut forwarded = Request::new(body);
    *forwarded.method_mut() = parts.method;
    *forwarded.uri_mut() = uri;
    *forwarded.version_mut() = Version::HTTP_2;
    *forwarded.headers_mut() = parts.headers;
    match owner.send_request(forwarded).await {
        Ok(response) => response.map(|body| Body::new(Relayed { body, is_over: false })),
        Err(error) => {
            tracing::debug!(%error, address, "The owner of the journal did not answer.");
            refusal(&headers, unavailable("the owner of the journal is gone"))
        }
    }
}

fn uri(address: &str, path: Option<&PathAndQuery>) -> Option<Uri> {
    let authority: Authority = address.parse().ok()?;
    let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build().ok()
}

fn unavailable(why: &'static str) -> Status {
    Status::new(Code::Unavailable, why)
}

/// A response of the owner. When the owner dies in the middle of it, it ends with a status that clients try again on.
struct Relayed {
    body: hyper::body::Incoming,
    is_over: bool,
}

impl http_body::Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(_)) = frame {
            self.is_over = true;
            let mut trailers = HeaderMap::new();
            // It only fails for a message that is no header, and this one is.
            unavailable("the owner of the journal is gone").add_header(&mut trailers).ok();
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }
}
