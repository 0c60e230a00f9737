//! `broker publish`.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;

use bytes::Bytes;
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::error::Error;
use super::input::{Input, Line, STDIN};
use super::output::{self, to_json};
use super::remote::Remote;
use super::units;

/// The most messages in one request.
const BATCH_MESSAGES_MAX: usize = 1_000;
/// Bytes of bodies after which a request is full: larger ones are not faster.
const BATCH_BYTES: usize = 1 << 20;
/// The most bytes that attributes and key of a message may cost in one request, all together. A request holds 10 MB.
const BATCH_OVERHEAD_BYTES: usize = 4_000_000;
/// Lines that are read ahead while a request is under way.
const LINES_AHEAD_MAX: usize = 1_000;

/// What to publish.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["message", "file", "lines", "attribute"])))]
pub struct Publish {
    /// The topic
    topic: String,
    /// Messages; a single `-` is the standard input
    message: Vec<String>,
    /// Read the message from a file; `-` is the standard input
    #[arg(long, short, value_name = "PATH", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// Each line is a message of its own, empty ones are left out; reads the standard input if nothing else is named
    #[arg(long)]
    lines: bool,
    /// An attribute of every message; may be given many times
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = units::key_value)]
    attribute: Vec<(String, String)>,
    /// The ordering key of every message: one key's messages are delivered in order
    #[arg(long, short = 'k', value_name = "KEY")]
    ordering_key: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Publish {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let publisher = self.remote.publisher().await?;
        match self.input() {
            Some(path) if self.lines => self.publish_lines(publisher, Input::open(&path)?).await,
            Some(path) => self.publish_all(publisher, vec![Input::open(&path)?.whole()?]).await,
            // Attributes alone are a message as well.
            None if self.message.is_empty() => self.publish_all(publisher, vec![Bytes::new()]).await,
            None if self.lines => {
                let lines = self.message.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty());
                let bodies = lines.map(|line| Bytes::from(line.to_owned())).collect();
                self.publish_all(publisher, bodies).await
            }
            None => {
                let bodies = self.message.iter().map(|text| Bytes::from(text.clone())).collect();
                self.publish_all(publisher, bodies).await
            }
        }
    }

    /// The file to read, if not everything stands on the command line.
    fn input(&self) -> Option<PathBuf> {
        let is_stdin = match self.message.as_slice() {
            [] => self.lines && self.file.is_none(),
            [only] => only == STDIN,
            _ => false,
        };
        if is_stdin { Some(PathBuf::from(STDIN)) } else { self.file.clone() }
    }

    /// Publishes messages in one request: the broker takes all or none.
    async fn publish_all(&self, mut publisher: PublisherClient<Channel>, bodies: Vec<Bytes>) -> Result<(), Error> {
        self.print(&self.publish(&mut publisher, bodies).await?, false)
    }

    /// Publishes line by line in their order, in requests as large as what has gathered.
    async fn publish_lines(&self, mut publisher: PublisherClient<Channel>, input: Input) -> Result<(), Error> {
        let (reader, mut lines) = mpsc::channel(LINES_AHEAD_MAX);
        // Nobody waits for this thread: it may sit in a read when everything else has ended.
        std::thread::spawn(move || input.lines(&reader));
        let messages_max = self.batch_messages_max();
        let (mut published, mut gathered) = (0, VecDeque::new());
        loop {
            if gathered.is_empty() {
                let mut more = Vec::new();
                if lines.recv_many(&mut more, messages_max).await == 0 {
                    return Ok(());
                }
                gathered.extend(more);
            }
            let sent = match next_batch(&mut gathered) {
                Ok((first, bodies)) => self.publish(&mut publisher, bodies).await.map_err(|error| (first, error)),
                Err(unreadable) => Err(unreadable),
            };
            let response = sent.map_err(|(number, source)| Error::Partly {
                published,
                first: format!("line {number}"),
                source: Box::new(source),
            })?;
            published += response.message_ids.len();
            self.print(&response, true)?;
        }
    }

    async fn publish(
        &self,
        publisher: &mut PublisherClient<Channel>,
        bodies: Vec<Bytes>,
    ) -> Result<pb::PublishResponse, Error> {
        let attributes: HashMap<_, _> = self.attribute.iter().cloned().collect();
        let message = |data| pb::PubsubMessage {
            data,
            attributes: attributes.clone(),
            ordering_key: self.ordering_key.clone().unwrap_or_default(),
            ..Default::default()
        };
        let messages = bodies.into_iter().map(message).collect();
        let request = pb::PublishRequest { topic: self.remote.topic(&self.topic), messages };
        Ok(publisher.publish(request).await?.into_inner())
    }

    /// Every message of a request carries attributes and key anew, and the request has a limit.
    fn batch_messages_max(&self) -> usize {
        let attributes: usize = self.attribute.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
        let key = self.ordering_key.as_ref().map_or(0, String::len);
        (BATCH_OVERHEAD_BYTES / (attributes + key + 16)).clamp(1, BATCH_MESSAGES_MAX)
    }

    /// The ids of what was published, one a line.
    fn print(&self, response: &pb::PublishResponse, is_one_of_many: bool) -> Result<(), Error> {
        if !self.remote.is_json() {
            return output::line(&response.message_ids.join("\n"));
        }
        let value = to_json("google.pubsub.v1.PublishResponse", response)?;
        if is_one_of_many { output::json_line(&value) } else { output::document(&value) }
    }
}

/// The bodies of the next request, and the number of its first line; or why that line can't be read.
fn next_batch(gathered: &mut VecDeque<Line>) -> Result<(u64, Vec<Bytes>), (u64, Error)> {
    let (mut first, mut bodies, mut bytes) = (0, Vec::new(), 0);
    while let Some(line) = gathered.pop_front() {
        match line.body {
            Ok(body) if bodies.is_empty() || bytes + body.len() <= BATCH_BYTES => {
                first = if bodies.is_empty() { line.number } else { first };
                bytes += body.len();
                bodies.push(body);
            }
            Err(error) if bodies.is_empty() => return Err((line.number, error)),
            body => {
                gathered.push_front(Line { body, ..line });
                break;
            }
        }
    }
    Ok((first, bodies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_lines_until_it_is_full_or_one_cannot_be_read() {
        let line = |number, bytes| Line { number, body: Ok(Bytes::from(vec![b'x'; bytes])) };
        let broken = Line { number: 9, body: Err(Error::Input(std::io::Error::other("gone"))) };
        let mut gathered =
            VecDeque::from([line(1, BATCH_BYTES), line(3, BATCH_BYTES), line(4, 1), line(5, BATCH_BYTES - 1), broken]);
        let mut next = || next_batch(&mut gathered).map(|(first, bodies)| (first, bodies.len())).map_err(|(at, _)| at);
        assert_eq!([next(), next(), next(), next()], [Ok((1, 1)), Ok((3, 1)), Ok((4, 2)), Err(9)]);
    }
}
