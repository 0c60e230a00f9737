//! Connections that tell when they end, so that a vanished consumer's messages go back at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::front::Upstream;

/// The most connections at a time.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// How long no connection is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long after the end of a stream its connection may take to end as well, for the two to count as one event.
pub(crate) const LOST_GRACE: Duration = Duration::from_millis(50);

/// A TCP connection whose end, however it comes, cancels a token that its requests carry.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    info: ConnectionInfo,
    /// Its place among the connections that there may be.
    _permit: OwnedSemaphorePermit,
}

/// What a request knows of the connection that it came on.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionInfo {
    /// Cancelled once nothing can come from the peer any more.
    pub(crate) lost: CancellationToken,
    /// Another broker forwards on it, for one client, and closes it before it lets a stream of a lost client end.
    pub(crate) is_forwarded: bool,
    /// The connection to the broker that owns the journal, if this one only forwards; it ends with this one.
    pub(crate) upstream: Upstream,
}

/// The connections that arrive at a listener. One that comes while there are `connections_max` is closed at once.
#[derive(Debug)]
pub(crate) struct Arrivals {
    listener: TcpListener,
    connections_max: usize,
    room: Arc<Semaphore>,
    is_full: bool,
}

impl Arrivals {
    pub(crate) fn new(listener: TcpListener, connections_max: usize) -> Self {
        Self { listener, connections_max, room: Arc::new(Semaphore::new(connections_max)), is_full: false }
    }

    /// Waits for the next one. Can be given up and asked again.
    pub(crate) async fn next(&mut self) -> Connection {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Mostly there are no file descriptors left, and then the next try fails as well until some are closed.
                    tracing::warn!(%error, "A connection could not be accepted.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
                if !std::mem::replace(&mut self.is_full, true) {
                    let connections_max = self.connections_max;
                    tracing::warn!(connections_max, "There are as many connections as there may be; more are closed.");
                }
                continue;
            };
            self.is_full = false;
            // Small replies must not wait for one another. It fails only when the peer has gone already.
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            return Connection { stream, info: ConnectionInfo::default(), _permit: permit };
        }
    }
}

/// Lets the process have as many open files as the system allows it: each connection is one.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, files_max = limit.current, "The limit of open files could not be raised.");
    }
}

impl Connection {
    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Waits until its peer has said something. False once it is gone.
    pub(crate) async fn is_used(&self) -> bool {
        self.stream.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0)
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.info.lost.cancel();
        }
        result
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let asked = buf.remaining();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if asked > 0 && buf.filled().len() == before {
            self.info.lost.cancel();
        }
        Poll::Ready(self.note(result))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.note(result))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        Poll::Ready(self.note(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        Poll::Ready(self.note(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(self.note(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.info.lost.cancel();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_beyond_the_limit_is_closed_and_one_that_comes_after_another_has_ended_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = Arrivals::new(listener, 2);
        let _first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let accepted = connections.next().await;
        let _kept = connections.next().await;
        let mut third = TcpStream::connect(address).await.unwrap();
        let mut nothing = [0; 1];
        tokio::select! {
            _ = connections.next() => panic!("it is let in"),
            read = third.read(&mut nothing) => assert_eq!(read.unwrap_or(0), 0, "it is closed"),
        }
        drop(accepted);
        let _fourth = TcpStream::connect(address).await.unwrap();
        connections.next().await;
    }

    #[test]
    fn there_may_be_as_many_open_files_as_the_system_allows() {
        raise_file_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
