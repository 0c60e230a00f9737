//! Talking to a running `orderflow up` from another terminal: JSON lines over a Unix domain socket in its folder.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time;

use crate::part::{Instance, Part};

/// A longer request or reply is refused.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024;
/// How long a runner may take to tell how its parts are.
const STATUS_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to start or to end a part: longer than the runner gives the part itself, and PostgreSQL, of which
/// something may be left that has to go before.
pub(super) const CHANGE_WITHIN: Duration = Duration::from_secs(75);

/// What the runner is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Tell how every part is.
    Status,
    /// End a part at once, by SIGKILL.
    Kill {
        /// Which one.
        part: Instance,
    },
    /// Let a part finish what it has in hand, by SIGTERM.
    Stop {
        /// Which one.
        part: Instance,
    },
    /// Start a part that has ended.
    Start {
        /// Which one.
        part: Instance,
    },
}

impl Request {
    /// How long the answer may take.
    fn limit(self) -> Duration {
        match self {
            Self::Status => STATUS_WITHIN,
            Self::Kill { .. } | Self::Stop { .. } | Self::Start { .. } => CHANGE_WITHIN,
        }
    }
}

/// What the runner answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Reply {
    /// It was done.
    Done {
        /// A sentence for people.
        message: String,
    },
    /// It was not done.
    Refused {
        /// Why.
        message: String,
    },
    /// How every part is.
    Status {
        /// In the order in which they start.
        parts: Vec<PartStatus>,
        /// Where its page is, if it serves one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        page: Option<SocketAddr>,
        /// Where a part with several instances is called, if not at the first of them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        doors: BTreeMap<Part, SocketAddr>,
    },
}

/// How one part is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartStatus {
    /// Which one.
    pub part: Instance,
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// Whether it says that it is ready to work.
    pub healthy: bool,
    /// Where it listens.
    pub address: String,
    /// The state in words: `healthy`, `running, but not ready`, or how it ended.
    pub state: String,
}

/// Why a running stack could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("no `orderflow up` runs on `{}`: start one, or name its folder with --data-dir (ORDERFLOW_DATA_DIR)", data_dir.display())]
    NotRunning {
        /// The folder in which the socket would be.
        data_dir: PathBuf,
    },
    /// The runner says nothing.
    #[error("the `orderflow up` on `{}` does not answer within {} s", data_dir.display(), within.as_secs())]
    Silent {
        /// Whose folder it is.
        data_dir: PathBuf,
        /// How long it was given.
        within: Duration,
    },
    /// The connection failed in some other way.
    #[error("the running `orderflow up` can't be asked: {0}")]
    Io(#[from] io::Error),
    /// The reply is none that this version knows.
    #[error("the running `orderflow up` gave an answer that can't be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// Asks the stack that runs on this folder. A runner that hangs is given up.
pub async fn ask(data_dir: &Path, request: Request) -> Result<Reply, Error> {
    ask_within(data_dir, request, request.limit()).await
}

async fn ask_within(data_dir: &Path, request: Request, within: Duration) -> Result<Reply, Error> {
    let silent = |_| Error::Silent { data_dir: data_dir.to_owned(), within };
    time::timeout(within, ask_patiently(data_dir, request)).await.map_err(silent)?
}

async fn ask_patiently(data_dir: &Path, request: Request) -> Result<Reply, Error> {
    let stream = UnixStream::connect(socket(data_dir)).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Error::NotRunning { data_dir: data_dir.to_owned() }
        }
        _ => Error::Io(error),
    })?;
    let mut stream = BufReader::new(stream);
    send(&mut stream, &request).await?;
    let line = receive(&mut stream).await?;
    Ok(serde_json::from_str(&line)?)
}

/// Where the control socket of a folder is.
pub(crate) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Opens the control socket. A socket file that a killed runner left behind is replaced: the caller holds the lock of
/// the folder, so nobody listens on it.
pub(crate) fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let path = socket(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Reads the one request of a connection.
pub(crate) async fn accept(stream: &mut BufReader<UnixStream>) -> Result<Request, Error> {
    Ok(serde_json::from_str(&receive(stream).await?)?)
}

/// Writes one message and the end of its line.
pub(crate) async fn send(stream: &mut BufReader<UnixStream>, message: &impl Serialize) -> Result<(), Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(stream.write_all(&line).await?)
}

async fn receive(stream: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(MESSAGE_BYTES_MAX).read_line(&mut line).await?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_without_a_runner_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = ask(folder.path(), Request::Status).await.unwrap_err();
        assert!(matches!(error, Error::NotRunning { .. }), "{error}");
        assert!(error.to_string().contains("ORDERFLOW_DATA_DIR"), "{error}");
    }

    #[tokio::test]
    async fn a_runner_that_hangs_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        // The system takes the connection; nobody accepts it.
        let _listener = listen(folder.path()).unwrap();
        let error = ask_within(folder.path(), Request::Status, Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, Error::Silent { .. }), "{error}");
    }

    #[test]
    fn an_answer_of_a_runner_without_a_page_is_read() {
        let reply: Reply = serde_json::from_str(r#"{"result":"status","parts":[]}"#).unwrap();
        assert_eq!(reply, Reply::Status { parts: Vec::new(), page: None, doors: BTreeMap::new() });
    }

    #[tokio::test]
    async fn an_endless_request_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let listener = listen(folder.path()).unwrap();
        let path = socket(folder.path());
        let client = tokio::spawn(async move {
            let mut stream = UnixStream::connect(path).await.unwrap();
            // The other side hangs up in the midst of it.
            let _ = stream.write_all(&vec![b'x'; 2 * 64 * 1024]).await;
        });
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        assert!(matches!(accept(&mut stream).await, Err(Error::Io(_))));
        client.abort();
    }
}
