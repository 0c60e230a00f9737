//! What an owner sees of clients that end, frame by frame.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::serving::serve;

/// Nothing that a test waits for takes longer, unless it does not happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a client ends, so that an owner that is told at random is told wrongly at least once.
const ROUNDS: usize = 30;

/// Requests of one client that wait at a time.
const WAITING: usize = 20;
/// A response that does not fit in what waits for a client, in bytes.
const LONG_BYTES: usize = 4 << 20;

/// Kinds of HTTP/2 frames: <https://www.rfc-editor.org/rfc/rfc9113#name-frame-definitions>
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
/// What a client says before its first frame, in bytes.
const PREFACE_BYTES: usize = 24;
/// Why a stream is reset.
const CANCEL: u8 = 8;
/// The header block that says `:status: 200`.
const STATUS_200: u8 = 0x88;
/// The header block of a POST of `/` by HTTP to the authority `front`.
const POST: [u8; 10] = [0x83, 0x86, 0x84, 0x01, 5, b'f', b'r', b'o', b'n', b't'];

/// An owner that notes the kinds of the frames it gets, until its connection ends.
async fn owner(answers: bool) -> (SocketAddr, UnboundedReceiver<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, kinds) = unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // The end of the connection, in order or not, is the end of what it sees.
        note(stream, answers, &seen).await.unwrap_or_default();
    });
    (address, kinds)
}

async fn note(mut stream: TcpStream, answers: bool, seen: &UnboundedSender<u8>) -> std::io::Result<()> {
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await?;
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    loop {
        let Frame { kind, flags, id: [a, b, c, d] } = frame(&mut stream).await?;
        seen.send(kind).ok();
        match kind {
            HEADERS if answers => stream.write_all(&[0, 0, 1, HEADERS, 4, a, b, c, d, STATUS_200]).await?,
            SETTINGS if flags == 0 => stream.write_all(&[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0]).await?,
            _ => {}
        }
    }
}

/// The head of a frame.
struct Frame {
    kind: u8,
    flags: u8,
    id: [u8; 4],
}

async fn frame(stream: &mut TcpStream) -> std::io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let [high, middle, low, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok(Frame { kind, flags, id })
}

/// A front that forwards to an owner.
async fn front(owner: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (role, roles) = watch::channel(Role::Forward(owner.to_string()));
    let front = Front::new(roles, CancellationToken::new());
    let router = Router::new().fallback(move |request: Request<Body>| front.clone().answer(request));
    tokio::spawn(async move {
        let _role = role;
        serve(listener, 10, router.into(), CancellationToken::new()).await;
    });
    address
}

/// A client with one request that never ends; once that is answered, if it will be.
async fn client(front: SocketAddr, is_answered: bool) -> TcpStream {
    let mut stream = TcpStream::connect(front).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
    let length = u8::try_from(POST.len()).unwrap();
    stream.write_all(&[0, 0, length, HEADERS, 4, 0, 0, 0, 1]).await.unwrap();
    stream.write_all(&POST).await.unwrap();
    let mut waits = is_answered;
    while waits {
        let Frame { kind, flags, .. } = frame(&mut stream).await.unwrap();
        waits = kind != HEADERS;
        if kind == SETTINGS && flags == 0 {
            stream.write_all(&[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0]).await.unwrap();
        }
    }
    stream
}

/// Waits for a frame of a kind; false when the connection ends before.
async fn comes(kinds: &mut UnboundedReceiver<u8>, wanted: u8) -> bool {
    let found = async {
        while let Some(kind) = kinds.recv().await {
            if kind == wanted {
                return true;
            }
        }
        false
    };
    timeout(PATIENCE, found).await.expect("the owner sees neither the frame nor an end")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_a_client_that_is_gone_ends_before_any_of_its_streams() {
    for round in 0..ROUNDS {
        let answers = round % 2 == 0;
        let (owner, mut kinds) = owner(answers).await;
        let client = client(front(owner).await, answers).await;
        assert!(comes(&mut kinds, HEADERS).await);
        drop(client);
        assert!(!comes(&mut kinds, RST_STREAM).await, "round {round}: the stream is reset first");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_client_that_lives_is_reset() {
    for answers in [true, false] {
        let (owner, mut kinds) = owner(answers).await;
        let mut client = client(front(owner).await, answers).await;
        assert!(comes(&mut kinds, HEADERS).await);
        client.write_all(&[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, CANCEL]).await.unwrap();
        assert!(comes(&mut kinds, RST_STREAM).await);
    }
}

/// An address that gives no answer, as that of a machine that is gone: its listener has no room for one more connection.
/// It is silent until what comes with it is dropped.
fn silent() -> (SocketAddr, (TcpListener, Vec<std::net::TcpStream>)) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        held.push(stream);
        assert!(held.len() < 100, "the listener takes whatever comes");
    }
    (address, (listener, held))
}

/// A request of a client.
fn request(connection: &ConnectionInfo) -> Request<Body> {
    Request::post("/").extension(connection.clone()).body(Body::empty()).unwrap()
}

/// The time in these tests is the runtime's: it goes on when there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn requests_of_one_client_wait_for_an_owner_that_is_silent_together_and_not_one_after_the_other() {
    let (address, _held) = silent();
    let (role, roles) = watch::channel(Role::Forward(address.to_string()));
    let front = Front::new(roles, CancellationToken::new());
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(1)).await;
            role.send_replace(Role::Forward(address.to_string()));
        }
    });
    let connection = ConnectionInfo::default();
    let mut answers = JoinSet::new();
    for _ in 0..WAITING {
        answers.spawn(front.clone().answer(request(&connection)));
    }
    let all = async {
        while let Some(answer) = answers.join_next().await {
            assert_eq!(answer.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    timeout(OWNER_PATIENCE + Duration::from_secs(1), all).await.expect("they wait one after the other");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_an_owner_that_is_silent_ends_when_its_front_stops() {
    let (address, _held) = silent();
    let (_role, roles) = watch::channel(Role::Forward(address.to_string()));
    let stop = CancellationToken::new();
    let mut answer = Box::pin(Front::new(roles, stop.clone()).answer(request(&ConnectionInfo::default())));
    assert!(timeout(Duration::ZERO, &mut answer).await.is_err(), "there is nobody who could answer");
    stop.cancel();
    let answer = timeout(Duration::ZERO, &mut answer).await.expect("it waits for the owner");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn requests_that_wait_for_an_owner_that_is_silent_go_to_the_next_one_as_soon_as_it_is_known() {
    let (address, _held) = silent();
    let (owner, _kinds) = owner(true).await;
    let (role, roles) = watch::channel(Role::Forward(address.to_string()));
    let front = Front::new(roles, CancellationToken::new());
    let connection = ConnectionInfo::default();
    let mut answers = JoinSet::new();
    for _ in 0..WAITING {
        let mut answer = Box::pin(front.clone().answer(request(&connection)));
        assert!(timeout(Duration::ZERO, &mut answer).await.is_err(), "there is nobody who could answer");
        answers.spawn(answer);
    }
    role.send_replace(Role::Forward(owner.to_string()));
    let all = async {
        while let Some(answer) = answers.join_next().await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
    };
    timeout(PATIENCE, all).await.expect("they wait for the owner before");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_a_client_does_not_read_hold_up_no_other_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let owner = Router::new().fallback(async || Body::from(vec![0; LONG_BYTES]));
    tokio::spawn(serve(listener, 10, owner.into(), CancellationToken::new()));
    let (_role, roles) = watch::channel(Role::Forward(address.to_string()));
    let front = Front::new(roles, CancellationToken::new());
    let connection = ConnectionInfo::default();
    let mut unread = Vec::new();
    for _ in 0..WAITING {
        unread.push(front.clone().answer(request(&connection)).await);
    }
    let answer = front.answer(request(&connection)).await;
    let read = timeout(PATIENCE, to_bytes(answer.into_body(), LONG_BYTES)).await;
    assert_eq!(read.expect("the others are in its way").unwrap().len(), LONG_BYTES);
}
