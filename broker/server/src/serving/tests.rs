use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::post;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

/// Long enough for everything here, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_time_limit_is_up_to_eight_digits_and_a_unit() {
    let limit = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        time_limit(&headers)
    };
    assert_eq!(limit("2H"), Some(Duration::from_secs(7_200)));
    assert_eq!(limit("3M"), Some(Duration::from_secs(180)));
    assert_eq!(limit("4S"), Some(Duration::from_secs(4)));
    assert_eq!(limit("99999999m"), Some(Duration::from_millis(99_999_999)));
    assert_eq!(limit("5u"), Some(Duration::from_micros(5)));
    assert_eq!(limit("6n"), Some(Duration::from_nanos(6)));
    for bad in ["", "S", "1", "-1S", "+1S", "1.5S", "100000000S", "1s", "1 S"] {
        assert_eq!(limit(bad), None, "{bad:?}");
    }
    assert_eq!(time_limit(&HeaderMap::new()), None);
}

/// A server whose `/wait` answers once it is told to, and whose `/now` answers at once.
struct Served {
    address: SocketAddr,
    task: JoinHandle<()>,
    stop: CancellationToken,
    begun: Arc<AtomicUsize>,
    has_begun: Arc<Notify>,
    may_end: Arc<Notify>,
}

async fn served() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, begun) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let (has_begun, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let waits = {
        let (begun, has_begun, may_end) = (Arc::clone(&begun), Arc::clone(&has_begun), Arc::clone(&may_end));
        post(move || async move {
            begun.fetch_add(1, Ordering::SeqCst);
            has_begun.notify_one();
            may_end.notified().await;
            "done"
        })
    };
    let router = Router::new().route("/wait", waits).route("/now", post(async || "done"));
    let task = tokio::spawn(serve(listener, 10, router.into(), stop.clone()));
    Served { address, task, stop, begun, has_begun, may_end }
}

async fn connect(address: SocketAddr) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    requests
}

fn call(path: &str, limit: Option<&str>) -> Request<Body> {
    let request = Request::post(format!("http://broker{path}")).header("content-type", "application/grpc");
    let request = limit.into_iter().fold(request, |request, limit| request.header("grpc-timeout", limit));
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_call_that_takes_longer_than_its_client_gives_it_is_ended() {
    let served = served().await;
    let mut requests = connect(served.address).await;
    let answer = timeout(PATIENCE, requests.send_request(call("/wait", Some("20m")))).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4", "DEADLINE_EXCEEDED");
    let answer = timeout(PATIENCE, requests.send_request(call("/now", Some("1H")))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("grpc-status"));
}

#[tokio::test]
async fn a_call_that_waits_holds_up_no_other_on_its_connection() {
    let served = served().await;
    let mut requests = connect(served.address).await;
    let waiting = requests.send_request(call("/wait", None));
    let (waiting, now) = (tokio::spawn(waiting), requests.send_request(call("/now", None)));
    timeout(PATIENCE, served.has_begun.notified()).await.unwrap();
    assert_eq!(timeout(PATIENCE, now).await.unwrap().unwrap().status(), 200);
    served.may_end.notify_one();
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_stop_lets_nobody_in_and_waits_for_what_is_open() {
    let served = served().await;
    let mut requests = connect(served.address).await;
    let waiting = tokio::spawn(requests.send_request(call("/wait", None)));
    timeout(PATIENCE, served.has_begun.notified()).await.unwrap();
    served.stop.cancel();
    let closed = async { while TcpStream::connect(served.address).await.is_ok() {} };
    timeout(PATIENCE, closed).await.expect("nobody is let in");
    assert!(!served.task.is_finished());
    served.may_end.notify_one();
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap().status(), 200);
    timeout(PATIENCE, served.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_is_aborted_cuts_its_connections_off() {
    let served = served().await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    let mut requests = connect(served.address).await;
    let waiting = tokio::spawn(requests.send_request(call("/wait", None)));
    timeout(PATIENCE, served.has_begun.notified()).await.unwrap();
    served.task.abort();
    timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap_err();
    assert_eq!(timeout(PATIENCE, idle.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn a_stop_closes_a_connection_that_is_idle_at_once() {
    let served = served().await;
    let mut requests = connect(served.address).await;
    let answer = timeout(PATIENCE, requests.send_request(call("/now", None))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    served.stop.cancel();
    timeout(KEEPALIVE_INTERVAL / 2, served.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_connection_that_has_said_nothing() {
    let served = served().await;
    let _silent = TcpStream::connect(served.address).await.unwrap();
    let mut requests = connect(served.address).await;
    assert!(timeout(PATIENCE, requests.send_request(call("/now", None))).await.unwrap().is_ok());
    served.stop.cancel();
    timeout(FIRST_BYTE_TIMEOUT / 2, served.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_says_nothing_loses_its_place() {
    let served = served().await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut requests = connect(served.address).await;
    // It came later, so the silent one has been let in as well.
    assert!(timeout(PATIENCE, requests.send_request(call("/now", None))).await.unwrap().is_ok());
    tokio::time::pause();
    assert_eq!(timeout(2 * FIRST_BYTE_TIMEOUT, silent.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_for_others_of_their_connection() {
    let served = served().await;
    let requests = connect(served.address).await;
    let calls_max = usize::try_from(CALLS_PER_CONNECTION_MAX).unwrap();
    let open = |_| tokio::spawn(requests.clone().send_request(call("/wait", None)));
    let waiting: Vec<_> = (0..=calls_max).map(open).collect();
    let has_begun = |count| {
        let begun = Arc::clone(&served.begun);
        async move {
            while begun.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    timeout(PATIENCE, has_begun(calls_max)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(served.begun.load(Ordering::SeqCst), calls_max);
    served.may_end.notify_one();
    timeout(PATIENCE, has_begun(calls_max + 1)).await.expect("one goes, and one comes");
    served.may_end.notify_waiters();
    for answer in waiting {
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap().status(), 200);
    }
}
