//! What a broker on a shared journal answers: with its own engine once it owns the journal, with the owner's until then.
//!
//! **Invariant:** a front knows no RPC. It forwards requests as they are, and each connection of a client has one of its
//! own to the owner, so that the owner hears at once when a client is gone.

mod upstream;

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderName, HeaderValue, Request, Uri, Version};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service;

use crate::connection::ConnectionInfo;
use crate::edge::{Dialect, stopping};
pub(crate) use upstream::Upstream;
use upstream::{Held, Owner};

/// How long a request waits for an owner when there is none, or none that can be reached.
const OWNER_PATIENCE: Duration = Duration::from_secs(5);
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
    stop: CancellationToken,
}

impl Front {
    /// What is forwarded ends when `stop` is cancelled, unless its answer has yet to come.
    pub(crate) fn new(role: watch::Receiver<Role>, stop: CancellationToken) -> Self {
        Self { role, stop }
    }

    pub(crate) async fn answer(mut self, request: Request<Body>) -> Response {
        let deadline = Instant::now() + OWNER_PATIENCE;
        let connection = request.extensions().get::<ConnectionInfo>().cloned().unwrap_or_default();
        let is_forwarded = request.headers().contains_key(FORWARDED);
        let dialect = Dialect::of(request.headers());
        loop {
            let role = self.role.borrow_and_update().clone();
            match role {
                Role::Serve(mut routes) => {
                    return routes.call(request).await.map_or_else(|never| match never {}, IntoResponse::into_response);
                }
                Role::Forward(address) if !is_forwarded => {
                    let reaching = connection.upstream.to(&address, &connection.lost, &self.stop);
                    let reached = tokio::select! {
                        biased;
                        reached = timeout_at(deadline, reaching) => reached,
                        true = moves(&mut self.role, &address) => continue,
                        () = self.stop.cancelled() => return dialect.refusal(stopping()),
                    };
                    match reached {
                        Ok(Ok(owner)) => return forward(owner, &address, request).await,
                        Ok(Err(error)) => {
                            tracing::debug!(%error, address, "The owner of the journal can't be reached.");
                        }
                        Err(_) => tracing::debug!(address, "The owner of the journal is silent."),
                    }
                }
                Role::Forward(_) | Role::Nobody => {}
            }
            // The role is told again and again, so this is the pause between two tries as well.
            let changed = tokio::select! {
                changed = timeout_at(deadline, self.role.changed()) => matches!(changed, Ok(Ok(()))),
                () = self.stop.cancelled() => return dialect.refusal(stopping()),
            };
            // A role that is told again does not prolong the wait.
            if !changed || Instant::now() >= deadline {
                return dialect.refusal(unavailable("no broker owns the journal at the moment"));
            }
        }
    }
}

/// Waits until the owner is not, or not known to be, at an address any more. False once nobody tells the role.
async fn moves(role: &mut watch::Receiver<Role>, address: &str) -> bool {
    let moved = role.wait_for(|role| !matches!(role, Role::Forward(other) if other == address)).await;
    moved.is_ok()
}

/// Passes a request on. Dropped in the middle, as when its client cancels it, it ends as the client's fate says.
async fn forward(owner: Owner, address: &str, request: Request<Body>) -> Response {
    let Owner { mut requests, fate, .. } = owner;
    let (mut parts, body) = request.into_parts();
    let dialect = Dialect::of(&parts.headers);
    let Some(uri) = uri(address, parts.uri.path_and_query()) else {
        return dialect.refusal(unavailable("the owner of the journal has no proper address"));
    };
    OF_CONNECTION.iter().for_each(|name| drop(parts.headers.remove(name)));
    parts.headers.insert(FORWARDED, HeaderValue::from_static("1"));
    let mut forwarded = Request::new(Body::new(upstream::Request::new(body, fate.clone())));
    *forwarded.method_mut() = parts.method;
    *forwarded.uri_mut() = uri;
    *forwarded.version_mut() = Version::HTTP_2;
    *forwarded.headers_mut() = parts.headers;
    let mut sending = Held::new(Box::pin(requests.send_request(forwarded)), fate.clone());
    let Some(sent) = sending.get() else { return dialect.refusal(stopping()) };
    let sent = sent.await;
    sending.over();
    match sent {
        Ok(response) => response.map(|body| Body::new(upstream::Response::new(body, fate))),
        Err(error) => {
            tracing::debug!(%error, address, "The owner of the journal did not answer.");
            dialect.refusal(unavailable("the owner of the journal is gone"))
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

#[cfg(test)]
mod tests;
