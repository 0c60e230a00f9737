//! Redis Streams: a pipeline of XADD for each batch, consumer groups, one XACK for what came together.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig};
use tokio_util::sync::CancellationToken;

use super::{Batch, Client};
use crate::error::{Error, Outcome};
use crate::process::{Server, program};

/// Messages of one read.
const READ_MESSAGES: usize = 1_000;
/// How long a read waits for its first message, in milliseconds.
const READ_PATIENCE_MS: usize = 100;

/// Starts a server; `sync` is what it is told of `appendfsync`.
pub(super) async fn start(sync: &str) -> Outcome<Server> {
    let program = program("redis-server", "REDIS_SERVER", "Debian: redis-server; REDIS_SERVER names the file")?;
    Server::start(|dir, address| {
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"]).arg(dir);
        command.args(["--appendonly", "yes", "--appendfsync", sync, "--save", ""]);
        Ok(command)
    })
    .await
}

pub(super) async fn connect(address: SocketAddr) -> Outcome<Arc<dyn Client>> {
    let client = redis::Client::open(format!("redis://{address}/")).map_err(Error::server)?;
    let connection = client.get_multiplexed_async_connection_with_config(&config()).await.map_err(Error::server)?;
    Ok(Arc::new(Redis { client, connection }))
}

struct Redis {
    client: redis::Client,
    connection: MultiplexedConnection,
}

#[tonic::async_trait]
impl Client for Redis {
    async fn prepare(&self, topics: usize, subscriptions: usize) -> Outcome {
        let mut connection = self.connection.clone();
        for at in 0..topics {
            for number in 0..subscriptions {
                let created: redis::RedisResult<()> =
                    connection.xgroup_create_mkstream(stream(at), group(number), "0").await;
                created.map_err(Error::server)?;
            }
        }
        Ok(())
    }

    async fn publish(&self, topic: usize, batch: &Batch) -> Outcome {
        let key = stream(topic);
        let mut pipeline = redis::Pipeline::with_capacity(batch.messages);
        for _ in 0..batch.messages {
            pipeline.cmd("XADD").arg(&key).arg("*").arg("d").arg(&batch.body[..]);
        }
        let ids: Vec<String> = pipeline.query_async(&mut self.connection.clone()).await.map_err(Error::server)?;
        if ids.len() != batch.messages {
            return Err(Error::Server(format!("{} ids for {} messages", ids.len(), batch.messages)));
        }
        Ok(())
    }

    async fn consume(&self, subscription: usize, received: &AtomicU64, stop: CancellationToken) -> Outcome {
        // A connection of its own, since a read that waits holds up what comes behind it.
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config()).await.map_err(Error::server)?;
        let group = group(subscription);
        let options = StreamReadOptions::default().group(&group, "consumer").count(READ_MESSAGES);
        let options = options.block(READ_PATIENCE_MS);
        while !stop.is_cancelled() {
            let read = connection.xread_options(&[stream(0)], &[">"], &options).await;
            let read: Option<StreamReadReply> = read.map_err(Error::server)?;
            let entries = read.into_iter().flat_map(|read| read.keys).flat_map(|key| key.ids);
            let ids: Vec<String> = entries.map(|entry| entry.id).collect();
            if ids.is_empty() {
                continue;
            }
            let acked: u64 = connection.xack(stream(0), &group, &ids).await.map_err(Error::server)?;
            received.fetch_add(acked, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Without a limit to how long an answer takes: each case has one of its own.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_response_timeout(None)
}

fn stream(at: usize) -> String {
    format!("bench:{at}")
}

fn group(number: usize) -> String {
    format!("group-{number}")
}
