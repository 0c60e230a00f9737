//! A TCP proxy in front of one or more servers. It goes round those that live, and can cut its line, let nobody through, or
//! hold all bytes back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 16 * 1024;

/// Connections that one proxy carries at once, each with two file handles; further ones wait until one of them ends.
const CONNECTIONS_MAX: usize = 1_000;

/// How long nobody is let in after that has failed, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 50;

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

/// Where a proxy leads to: several addresses take turns.
#[derive(Debug)]
struct Targets {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
}

/// A proxy in front of one or more addresses. It ends with its drop.
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
    /// Listens on a free port and connects whoever comes to one of `targets`: to each in its turn, and to the next one where
    /// nobody listens.
    pub async fn start(targets: Vec<SocketAddr>) -> io::Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), targets).await
    }

    /// The same on an address of its own.
    pub async fn listen(address: SocketAddr, targets: Vec<SocketAddr>) -> io::Result<Self> {
        Self::listen_for(CONNECTIONS_MAX, address, targets).await
    }

    async fn listen_for(connections_max: usize, address: SocketAddr, targets: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let targets = Arc::new(Targets { addresses: targets, next: AtomicUsize::new(0) });
        let places = Arc::new(Semaphore::new(connections_max));
        let end = CancellationToken::new();
        let knife = end.child_token();
        let (mode, mode_rx) = watch::channel(Mode::Open);
        let (knives, knives_rx) = watch::channel(knife.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(accept(listener, places, targets, mode_rx, knives_rx)));
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

impl Targets {
    async fn connect(&self) -> io::Result<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut refused = io::Error::from(io::ErrorKind::NotConnected);
        for step in 0..self.addresses.len() {
            match TcpStream::connect(self.addresses[first.wrapping_add(step) % self.addresses.len()]).await {
                Ok(stream) => return Ok(stream),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

async fn accept(
    listener: TcpListener,
    places: Arc<Semaphore>,
    targets: Arc<Targets>,
    mode: watch::Receiver<Mode>,
    knives: watch::Receiver<CancellationToken>,
) {
    // Nobody closes the semaphore. Who finds no place stays in the system's queue.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((client, _)) = listener.accept().await else {
            // Out of file handles, most likely: others will be closed.
            tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            continue;
        };
        if *mode.borrow() == Mode::Refusing {
            continue;
        }
        let knife = knives.borrow().clone();
        let connection = connect(client, Arc::clone(&targets), mode.clone());
        tokio::spawn(knife.run_until_cancelled_owned(async move {
            let ended = connection.await;
            drop(place);
            ended
        }));
    }
}

/// Both sides see the end of the other; an error on one closes both.
async fn connect(client: TcpStream, targets: Arc<Targets>, mode: watch::Receiver<Mode>) -> io::Result<()> {
    let server = targets.connect().await?;
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
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// A server that says its name to each that comes, and then sends everything back.
    struct Echo {
        address: SocketAddr,
        end: tokio_util::sync::DropGuard,
    }

    async fn server(name: &'static [u8]) -> Echo {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let all = end.clone();
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(all.clone().run_until_cancelled_owned(async move {
                    stream.write_all(name).await?;
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                }));
            }
        }));
        Echo { address, end: end.drop_guard() }
    }

    /// A server that sends everything back, and a proxy in front of it. It lives as long as the test's runtime.
    async fn echo() -> Proxy {
        let Echo { address, end } = server(b"").await;
        end.disarm();
        Proxy::start(vec![address]).await.unwrap()
    }

    /// Who is behind a proxy for one that comes now; nothing if nobody is.
    async fn greeting(proxy: &Proxy) -> Option<(TcpStream, u8)> {
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let read = tokio::time::timeout(DEADLINE, stream.read_u8()).await.expect("bytes or an end");
        Some((stream, read.ok()?))
    }

    #[tokio::test]
    async fn new_connections_go_round_and_those_of_a_dead_server_come_to_a_living_one() {
        let (one, two) = (server(b"1").await, server(b"2").await);
        let proxy = Proxy::start(vec![one.address, two.address]).await.unwrap();
        let mut named = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..4 {
            let (stream, name) = greeting(&proxy).await.unwrap();
            named.push(name);
            streams.push(stream);
        }
        assert_eq!(named, *b"1212");
        drop(two);
        assert!(!said_back(&mut streams[1], b"hello").await, "the client hears that its server is gone");
        for _ in 0..4 {
            assert_eq!(greeting(&proxy).await.unwrap().1, b'1');
        }
        assert!(said_back(&mut streams[0], b"hello").await, "others are left alone");
        drop(one);
        assert!(greeting(&proxy).await.is_none(), "nobody is left");
    }

    #[tokio::test]
    async fn who_is_one_too_many_waits_for_a_place() {
        let server = server(b"1").await;
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let proxy = Proxy::listen_for(2, address, vec![server.address]).await.unwrap();
        let first = greeting(&proxy).await.unwrap();
        let _second = greeting(&proxy).await.unwrap();
        let mut third = TcpStream::connect(proxy.address()).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), third.read_u8()).await;
        assert!(early.is_err(), "there is no place: {early:?}");
        drop(first);
        let name = tokio::time::timeout(DEADLINE, third.read_u8()).await.expect("bytes or an end");
        assert_eq!(name.unwrap(), b'1');
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
