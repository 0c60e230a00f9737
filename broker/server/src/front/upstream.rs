//! The way to the owner: one connection for each connection of a client, and what is under way on it.
//!
//! **Invariant:** the owner learns of a client what it would have learned itself. A stream that is reset belongs to a
//! client that lives; of one that is gone the connection ends, and nothing is reset before. So the owner need not guess.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::Status;

use super::unavailable;
use crate::connection::LOST_GRACE;
use crate::edge::stopping;
use crate::serving::{CALLS_PER_CONNECTION_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// How long a connection to the owner may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an address is not tried again once it could not be reached, so that requests that waited for the one that
/// tried fail with it instead of one after the other.
const FAILED_PAUSE: Duration = Duration::from_millis(500);

/// How much of a response waits here for a client that does not read it, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same for all calls of a client, so that those whose responses wait hold up no other one.
const CONNECTION_WINDOW_BYTES: u32 = CALLS_PER_CONNECTION_MAX * STREAM_WINDOW_BYTES;

/// A client's connection to the owner, if it has one yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstream(Arc<Mutex<Place>>);

/// What is known of the way to the owner.
#[derive(Debug, Default)]
struct Place {
    owner: Option<Owner>,
    /// The address that could not be reached last, and when that was known.
    failed: Option<(String, Instant)>,
}

/// The way to an owner.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    address: String,
    pub(super) requests: SendRequest<Body>,
    pub(super) fate: Fate,
}

impl Upstream {
    /// A way to the owner, which ends at once when the client is lost. When `stop` is cancelled that is about to happen.
    pub(super) async fn to(
        &self,
        address: &str,
        lost: &CancellationToken,
        stop: &CancellationToken,
    ) -> io::Result<Owner> {
        let mut place = self.0.lock().await;
        if let Some(owner) = place.owner.as_ref()
            && owner.address == address
            && !owner.requests.is_closed()
        {
            return Ok(owner.clone());
        }
        if let Some((failed, since)) = &place.failed
            && failed == address
            && since.elapsed() < FAILED_PAUSE
        {
            return Err(io::Error::other("it could not be reached a moment ago"));
        }
        let connected = Owner::connect(address, lost, stop).await;
        match &connected {
            Ok(owner) => *place = Place { owner: Some(owner.clone()), failed: None },
            Err(_) => place.failed = Some((address.to_owned(), Instant::now())),
        }
        connected
    }
}

impl Owner {
    async fn connect(address: &str, lost: &CancellationToken, stop: &CancellationToken) -> io::Result<Self> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
        // Small requests must not wait for one another.
        stream.set_nodelay(true)?;
        let fate = Fate { lost: lost.clone(), stop: stop.clone(), closed: CancellationToken::new() };
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(Wire::new(stream, &fate)))
            .await;
        let (requests, connection) = handshake.map_err(io::Error::other)?;
        // It ends with the last handle on it, and its error is the one that the requests get.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(Self { address: address.to_owned(), requests, fate })
    }
}

/// What the connection to the owner runs over. It breaks when the client is lost: nothing is written from then on, since
/// what runs over it would reset its streams.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    lost: CancellationToken,
    broken: Pin<Box<WaitForCancellationFutureOwned>>,
    _closed: DropGuard,
}

impl Wire {
    fn new(stream: TcpStream, fate: &Fate) -> Self {
        let lost = fate.lost.clone();
        let broken = Box::pin(lost.clone().cancelled_owned());
        Self { stream, lost, broken, _closed: fate.closed.clone().drop_guard() }
    }

    fn check(&self) -> io::Result<()> {
        if self.lost.is_cancelled() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // It is read all the time, so this is what wakes it.
        if self.broken.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What becomes of a client whose stream has ended.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    /// The client is gone.
    lost: CancellationToken,
    /// This broker stops, and so all its clients lose their connections.
    stop: CancellationToken,
    /// The connection to the owner is closed.
    closed: CancellationToken,
}

impl Fate {
    /// Waits until it is known that the client lives on, or until its connection to the owner is closed.
    async fn known(self) {
        let gone = async {
            tokio::select! {
                () = self.lost.cancelled() => {}
                () = self.stop.cancelled() => {}
            }
        };
        // Stream and connection end one shortly after the other, in either order.
        if timeout(LOST_GRACE, gone).await.is_ok() {
            self.closed.cancelled().await;
        }
    }
}

/// Something whose end resets a stream to the owner. Dropped before it is over it lives on until the fate of the client is
/// known.
#[derive(Debug)]
pub(super) struct Held<T: Send + 'static> {
    held: Option<T>,
    fate: Fate,
}

impl<T: Send + 'static> Held<T> {
    pub(super) fn new(held: T, fate: Fate) -> Self {
        Self { held: Some(held), fate }
    }

    /// None once it is over.
    pub(super) fn get(&mut self) -> Option<&mut T> {
        self.held.as_mut()
    }

    /// It is over: there is nothing left to be reset.
    pub(super) fn over(&mut self) {
        self.held = None;
    }

    /// Drops it as soon as the fate of the client is known.
    fn leave(&mut self) {
        let (Some(held), Ok(runtime)) = (self.held.take(), Handle::try_current()) else { return };
        let fate = self.fate.clone();
        runtime.spawn(async move {
            fate.known().await;
            drop(held);
        });
    }
}

impl<T: Send + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Ends once the fate of a client is known.
type Known = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request of a client.
pub(super) struct Request {
    body: Body,
    fate: Fate,
    /// Why there is no more of it, once the fate of the client is known.
    broken: Option<(axum::Error, Known)>,
}

impl Request {
    pub(super) fn new(body: Body, fate: Fate) -> Self {
        Self { body, fate, broken: None }
    }
}

impl http_body::Body for Request {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.broken.is_none() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Err(error)) => self.broken = Some((error, Box::pin(self.fate.clone().known()))),
                frame => return Poll::Ready(frame),
            }
        }
        if let Some((_, known)) = &mut self.broken {
            ready!(known.as_mut().poll(cx));
        }
        Poll::Ready(self.broken.take().map(|(error, _)| Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A response of the owner. When the owner dies in the middle of it, or this broker stops, it ends with a status that
/// clients try again on.
pub(super) struct Response {
    body: Held<Incoming>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Response {
    pub(super) fn new(body: Incoming, fate: Fate) -> Self {
        let stop = Box::pin(fate.stop.clone().cancelled_owned());
        Self { body: Held::new(body, fate), stop }
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.body.leave();
        let mut trailers = HeaderMap::new();
        // It only fails for a message that is no header, and these are.
        status.add_header(&mut trailers).ok();
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Response {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = self.body.get() else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() {
                    self.body.over();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                Poll::Ready(Some(Ok(self.end(&unavailable("the owner of the journal is gone")))))
            }
            Poll::Ready(None) => {
                self.body.over();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.stop.as_mut().poll(cx));
                Poll::Ready(Some(Ok(self.end(&stopping()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.held.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        // Without trailers, an end may be all that was left.
        if http_body::Body::is_end_stream(self) {
            self.body.over();
        }
    }
}
