//! Connections to the page: so many at most, and none for ever that nothing passes over.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections that may be open at the same time, those of event streams among them.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// How long nothing may pass over a connection until it is closed. Event streams say something every few seconds.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);

/// Whoever comes while there is no place is told so, without being asked what for.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 47\r\n\
    connection: close\r\nretry-after: 5\r\n\r\ntoo many connections to this page are open now\n";

/// Accepts connections while there are places.
pub(super) struct Crowd {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle_max: Duration,
}

/// A connection that has a place.
pub(super) struct Visitor {
    stream: TcpStream,
    idle_max: Duration,
    /// Wakes whoever reads when nothing has passed for too long.
    idle: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Crowd {
    pub(super) fn new(listener: TcpListener, connections_max: usize, idle_max: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(connections_max)), idle_max }
    }
}

impl Listener for Crowd {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                let (idle_max, idle) = (self.idle_max, Box::pin(sleep(self.idle_max)));
                return (Visitor { stream, idle_max, idle, _place: place }, address);
            }
            // A new connection has room for these few bytes; whoever doesn't read them sees that it is closed.
            let _ = stream.writable().await;
            let _ = stream.try_write(FULL);
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Visitor {
    fn touch(&mut self) {
        let deadline = Instant::now() + self.idle_max;
        self.idle.as_mut().reset(deadline);
    }
}

impl AsyncRead for Visitor {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending if self.idle.as_mut().poll(cx).is_ready() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            read @ Poll::Ready(_) => {
                self.touch();
                read
            }
        }
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.touch();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// A server with so many places, and where it is.
    async fn serve(connections_max: usize, idle_max: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router: Router = Router::new().route("/", get(async || "welcome"));
        tokio::spawn(axum::serve(Crowd::new(listener, connections_max, idle_max), router).into_future());
        address
    }

    /// All that the server says on a connection until it closes it.
    async fn said(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut text)).await.expect("it is closed in time");
        String::from_utf8(text).unwrap()
    }

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: page\r\nconnection: close\r\n\r\n").await;
        said(&mut stream).await
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_told_so_and_the_next_one_is_served_when_there_is_a_place() {
        let address = serve(2, Duration::from_secs(3_600)).await;
        let held = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let refused = said(&mut TcpStream::connect(address).await.unwrap()).await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        let (head, body) = refused.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{refused}");
        drop(held);
        let served = async { while !ask(address).await.ends_with("welcome") {} };
        timeout(DEADLINE, served).await.expect("a place is free again");
    }

    #[tokio::test]
    async fn a_connection_over_which_nothing_passes_is_closed_and_gives_its_place_back() {
        let address = serve(1, Duration::from_millis(50)).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(said(&mut silent).await, "");
        let served = async { while !ask(address).await.ends_with("welcome") {} };
        timeout(DEADLINE, served).await.expect("the place is free again");
    }
}
