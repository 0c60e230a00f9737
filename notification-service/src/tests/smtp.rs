//! A small mail server (RFC 5321) for tests. It insists on the order of commands and on the ends of lines, and can be told to
//! misbehave.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What it does with the next mail to somebody.
#[derive(Clone, Debug)]
pub(super) enum Mood {
    /// Answers the recipient with this.
    Says(&'static str),
    /// Keeps the mail and hangs up without an answer.
    HangsUp,
    /// Keeps the mail and never answers.
    FallsSilent,
}

/// A mail that was taken.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) to: String,
    pub(super) text: String,
}

impl Mail {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> &str {
        let head = self.text.split("\r\n\r\n").next().unwrap();
        let prefix = format!("{name}: ");
        head.split("\r\n").find_map(|line| line.strip_prefix(prefix.as_str())).unwrap()
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) mails: Vec<Mail>,
    pub(super) moods: HashMap<String, VecDeque<Mood>>,
}

pub(super) struct Smtp {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    /// Keeps the port while nobody listens on it.
    _place: TcpSocket,
    serving: Option<JoinHandle<()>>,
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl Smtp {
    /// A server that is down.
    pub(super) fn down() -> Self {
        let place = socket(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = place.local_addr().unwrap();
        Self { state: Arc::default(), address, _place: place, serving: None }
    }

    pub(super) fn start() -> Self {
        let mut server = Self::down();
        server.revive();
        server
    }

    pub(super) fn revive(&mut self) {
        let listener = socket(self.address).listen(64).unwrap();
        let state = Arc::clone(&self.state);
        self.serving = Some(tokio::spawn(async move {
            let mut talks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                // A client that goes away is none of the server's business.
                talks.spawn(async move { drop(talk(stream, &state).await) });
            }
        }));
    }

    pub(super) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What it does with the next mails to somebody, one after the other.
    pub(super) fn moods(&self, to: &str, moods: &[Mood]) {
        self.state().moods.insert(to.to_owned(), moods.to_vec().into());
    }

    pub(super) fn mails(&self) -> Vec<Mail> {
        self.state().mails.clone()
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

/// One connection.
async fn talk(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut recipient: Option<(String, Option<Mood>)> = None;
    let (mut is_greeted, mut has_sender) = (false, false);
    say(&mut stream, "220 mail.test").await?;
    loop {
        let line = line(&mut stream).await?;
        let (verb, rest) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        let answer = match verb {
            "EHLO" => {
                is_greeted = true;
                "250-mail.test\r\n250 8BITMIME"
            }
            "MAIL" if is_greeted && !has_sender && rest.starts_with("FROM:<") => {
                has_sender = true;
                "250 go on"
            }
            "RCPT" if has_sender && recipient.is_none() => {
                let to = rest.strip_prefix("TO:<").and_then(|rest| rest.strip_suffix('>')).expect("no recipient");
                match state.lock().unwrap().moods.get_mut(to).and_then(VecDeque::pop_front) {
                    Some(Mood::Says(answer)) => answer,
                    mood => {
                        recipient = Some((to.to_owned(), mood));
                        "250 go on"
                    }
                }
            }
            "DATA" if recipient.is_some() => {
                say(&mut stream, "354 go on").await?;
                let text = data(&mut stream).await?;
                let (to, mood) = recipient.take().expect("a recipient came before");
                has_sender = false;
                state.lock().unwrap().mails.push(Mail { to, text });
                match mood {
                    Some(Mood::HangsUp) => return Ok(()),
                    Some(Mood::FallsSilent) => std::future::pending().await,
                    _ => "250 taken",
                }
            }
            "RSET" | "NOOP" => {
                (recipient, has_sender) = (None, false);
                "250 fine"
            }
            "QUIT" => return say(&mut stream, "221 bye").await,
            _ => "503 not now",
        };
        say(&mut stream, answer).await?;
    }
}

async fn say(stream: &mut BufReader<TcpStream>, text: &str) -> io::Result<()> {
    stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.strip_suffix("\r\n").expect("a line without its end").to_owned())
}

async fn data(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    loop {
        let line = line(stream).await?;
        match line.strip_prefix('.') {
            Some("") => return Ok(text),
            Some(rest) => text.push_str(rest),
            None => text.push_str(&line),
        }
        text.push_str("\r\n");
    }
}
