//! A broker on a journal in NATS, and what every test has on it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use orderflow_proto::google::pubsub::v1 as pb;
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Client, SUBSCRIPTION, TOPIC};
use crate::started::{BrokerProcess, broker};

/// What the log says before the address of a broker that will own the journal or forward to its owner.
const JOINED: &str = "The broker has joined its cluster. address=";

/// How long a takeover may take: the claim of an owner that is silent has to run out first.
pub(crate) const TAKEOVER_PATIENCE: Duration = Duration::from_secs(60);

/// A broker on a journal, with a directory of its own.
pub(crate) struct Front {
    pub(crate) process: BrokerProcess,
    _dir: TempDir,
}

impl Front {
    pub(crate) fn join(url: &str) -> Self {
        Self::join_with(url, |_| {})
    }

    pub(crate) fn join_with(url: &str, adjust: impl FnOnce(&mut Command)) -> Self {
        let dir = TempDir::new().unwrap();
        let data_dir = dir.path().to_str().unwrap();
        let mut command = broker(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir, "--engine", url]);
        adjust(&mut command);
        Self { process: BrokerProcess::spawn(command, JOINED), _dir: dir }
    }

    /// A client, once there is an owner that answers it.
    pub(crate) async fn client(&self) -> Client {
        let client = Client::connect(&self.process.url()).await;
        let begun = Instant::now();
        let list = pb::ListTopicsRequest { project: "projects/p".to_owned(), ..Default::default() };
        while let Err(status) = client.publisher.clone().list_topics(list.clone()).await {
            assert!(begun.elapsed() < TAKEOVER_PATIENCE, "nobody answers: {status}");
            assert_eq!(status.code(), Code::Unavailable, "{status}");
        }
        client
    }

    /// The exit code of a command that asks for its health.
    pub(crate) fn health(&self) -> Option<i32> {
        broker(&["health", "--address", &self.process.url()]).stderr(Stdio::null()).status().unwrap().code()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

pub(crate) async fn create(client: &Client) {
    client.create_topic(TOPIC).await;
    let subscription = pb::Subscription {
        name: SUBSCRIPTION.to_owned(),
        topic: TOPIC.to_owned(),
        ack_deadline_seconds: 600,
        enable_exactly_once_delivery: true,
        ..Default::default()
    };
    client.create(subscription).await.unwrap();
}
