//! Messages from a file or the standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::error::Error;

/// The path that stands for the standard input.
pub(super) const STDIN: &str = "-";
/// The largest message that is read, in bytes: none larger fits into a request.
const MESSAGE_BYTES_MAX: u64 = 10_000_000;

/// Where messages are read from.
pub(super) struct Input {
    /// None for the standard input.
    path: Option<PathBuf>,
    reader: Box<dyn BufRead + Send>,
}

/// A line of the input, or why it can't be read.
#[derive(Debug)]
pub(super) struct Line {
    /// The first has number 1.
    pub(super) number: u64,
    /// Without its end.
    pub(super) body: Result<Bytes, Error>,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new(STDIN) {
            return Ok(Self { path: None, reader: Box::new(BufReader::new(io::stdin())) });
        }
        let file = File::open(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Ok(Self { path: Some(path.to_owned()), reader: Box::new(BufReader::new(file)) })
    }

    /// All of it, as one message.
    pub(super) fn whole(mut self) -> Result<Bytes, Error> {
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.and_then(|_| check(&bytes)).map_err(|error| self.error(error))?;
        Ok(bytes.into())
    }

    /// Sends each line that is not empty, until the end, an error, or nobody receives.
    pub(super) fn lines(mut self, to: &mpsc::Sender<Line>) {
        for number in 1.. {
            let body = match self.line() {
                Ok(None) => return,
                Ok(Some(line)) if line.is_empty() => continue,
                Ok(Some(line)) => Ok(line),
                Err(error) => Err(self.error(error)),
            };
            let is_error = body.is_err();
            if to.blocking_send(Line { number, body }).is_err() || is_error {
                return;
            }
        }
    }

    fn line(&mut self) -> io::Result<Option<Bytes>> {
        let mut bytes = Vec::new();
        // A line that is too long is found out before it is read whole.
        self.reader.by_ref().take(MESSAGE_BYTES_MAX + 2).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        check(&bytes)?;
        Ok(Some(bytes.into()))
    }

    fn error(&self, source: io::Error) -> Error {
        match self.path.clone() {
            Some(path) => Error::File { path, source },
            None => Error::Input(source),
        }
    }
}

fn check(message: &[u8]) -> io::Result<()> {
    if message.len() as u64 > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a message of more than {MESSAGE_BYTES_MAX} bytes does not fit a request"
        )));
    }
    Ok(())
}
