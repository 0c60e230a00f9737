//! A TCP proxy on a line, which can cut it, let nobody through, or hold all bytes back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 16 * 1024;

/// What a proxy does with its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes go through.
    Open,
    /// New connections are closed at once; those that are there go on.
    Refusing,
    /// No byte goes through in either direction, and nobody is told.
    Frozen,
}

/// A proxy in front of one address. It ends with its drop.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Cancelled when the connections that are there are cut.
    knife: Mutex<CancellationToken>,
    /// The parent of all knives.
    end: CancellationToken,
    knives: watch::Sender<CancellationToken>,
}

impl Proxy {
    /// Listens on a free port and connects whoever comes to `target`.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let end = CancellationToken::new();
        let knife = end.child_token();
        let (mode, mode_rx) = watch::channel(Mode::Open);
        let (knives, knives_rx) = watch::channel(knife.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(accept(listener, target, mode_rx, knives_rx)));
        Ok(Self { address, mode, knife: Mutex::new(knife), end, knives })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection that is there.
    pub fn cut(&self) {
        let next = self.end.child_token();
        self.knives.send_replace(next.clone());
        let mut knife = self.knife.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *knife, next).cancel();
    }

    /// Changes what becomes of connections and bytes from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    mode: watch::Receiver<Mode>,
    knives: watch::Receiver<CancellationToken>,
) {
    loop {
        // Out of file handles, most likely: others will be closed.
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        if *mode.borrow() == Mode::Refusing {
            continue;
        }
        let knife = knives.borrow().clone();
        tokio::spawn(knife.run_until_cancelled_owned(connect(client, target, mode.clone())));
    }
}

/// Both sides see the end of the other; an error on one closes both.
async fn connect(client: TcpStream, target: SocketAddr, mode: watch::Receiver<Mode>) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(copy(from_client, to_server, mode.clone()), copy(from_server, to_client, mode))?;
    Ok(())
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if mode.wait_for(|mode| *mode != Mode::Frozen).await.is_err() {
            return Ok(());
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// A server that sends everything back, and a proxy in front of it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                });
            }
        });
        Proxy::start(address).await.unwrap()
    }

    async fn said_back(stream: &mut TcpStream, text: &[u8]) -> bool {
        let mut back = vec![0; text.len()];
        let exchange = async {
            stream.write_all(text).await?;
            stream.read_exact(&mut back).await
        };
        let heard = tokio::time::timeout(DEADLINE, exchange).await.expect("bytes or an end").is_ok();
        heard && back == text
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_new_ones_go_through() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(said_back(&mut stream, b"one").await);
        proxy.cut();
        assert!(!said_back(&mut stream, b"two").await);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(said_back(&mut stream, b"three").await);
        proxy.cut();
        assert!(!said_back(&mut stream, b"four").await);
    }

    #[tokio::test]
    async fn a_refusing_line_keeps_those_who_are_there() {
        let proxy = echo().await;
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(said_back(&mut old, b"one").await);
        proxy.set(Mode::Refusing);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(!said_back(&mut new, b"two").await);
        assert!(said_back(&mut old, b"three").await);
        proxy.set(Mode::Open);
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(said_back(&mut new, b"four").await);
    }

    #[tokio::test]
    async fn frozen_bytes_arrive_when_the_line_thaws() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(said_back(&mut stream, b"one").await);
        proxy.set(Mode::Frozen);
        stream.write_all(b"two").await.unwrap();
        let mut back = [0; 3];
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut back)).await;
        assert!(early.is_err(), "a frozen line lets nothing through");
        proxy.set(Mode::Open);
        tokio::time::timeout(DEADLINE, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"two");
    }
}
