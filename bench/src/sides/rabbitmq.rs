//! RabbitMQ: quorum queues, publisher confirms, manual acks of several deliveries at once.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio_util::sync::CancellationToken;

use super::{Batch, Client};
use crate::error::{Error, Outcome};
use crate::process::{Server, free_address, program};

/// The exchange from which messages go to all queues.
const EXCHANGE: &str = "bench";
/// Channels that publishes take turns on.
const CHANNELS: usize = 4;
/// Messages that a consumer may have out.
const OUTSTANDING_MAX: u16 = 10_000;
/// Deliveries that are acked at once, if so many are there.
const ACKED_TOGETHER: usize = 1_000;
/// The delivery mode that asks for the disk.
const PERSISTENT: u8 = 2;

/// Starts a node of its own, with its own folder and names.
pub(super) async fn start() -> Outcome<Server> {
    let hint = "Debian: rabbitmq-server; RABBITMQ_SERVER names the file";
    let program = program("rabbitmq-server", "RABBITMQ_SERVER", hint)?;
    let (distribution, mapper) = (free_address()?.port().to_string(), free_address()?.port().to_string());
    let server = Server::start(|dir, address| {
        let config = format!("listeners.tcp.1 = {address}\nmanagement.tcp.ip = 127.0.0.1\n");
        std::fs::write(dir.join("rabbitmq.conf"), config)?;
        std::fs::write(dir.join("enabled_plugins"), "[].\n")?;
        let mut command = Command::new(program);
        command.env("RABBITMQ_NODENAME", format!("bench-{}@localhost", address.port()));
        command.env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf")).env("HOME", dir);
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"));
        command.env("RABBITMQ_MNESIA_BASE", dir.join("data")).env("RABBITMQ_LOG_BASE", dir.join("log"));
        command.env("RABBITMQ_DIST_PORT", &distribution).env("ERL_EPMD_PORT", &mapper);
        command.env("ERL_EPMD_ADDRESS", "127.0.0.1").env("RABBITMQ_PID_FILE", dir.join("pid"));
        // The mapper may be told to end while it still knows the node.
        command.env("ERL_EPMD_RELAXED_COMMAND_CHECK", "1");
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        Ok(command)
    })
    .await?;
    // The node leaves it behind, in a process group of its own.
    let mut end_mapper = Command::new("epmd");
    end_mapper.args(["-port", &mapper, "-kill"]);
    Ok(server.ends_with(end_mapper))
}

pub(super) async fn connect(address: SocketAddr) -> Outcome<Arc<dyn Client>> {
    let uri = format!("amqp://{address}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.map_err(Error::server)?;
    let mut channels = Vec::with_capacity(CHANNELS);
    for _ in 0..CHANNELS {
        let channel = connection.create_channel().await.map_err(Error::server)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(Error::server)?;
        channels.push(channel);
    }
    Ok(Arc::new(Rabbitmq { connection, channels, next: AtomicUsize::new(0) }))
}

struct Rabbitmq {
    connection: Connection,
    channels: Vec<Channel>,
    next: AtomicUsize,
}

#[tonic::async_trait]
impl Client for Rabbitmq {
    async fn prepare(&self, topics: usize, subscriptions: usize) -> Outcome {
        let channel = &self.channels[0];
        let exchange = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, exchange, FieldTable::default());
        declared.await.map_err(Error::server)?;
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        for at in 0..topics {
            for number in 0..subscriptions {
                let (queue, durable) = (queue(at, number), QueueDeclareOptions { durable: true, ..Default::default() });
                let declared = channel.queue_declare(queue.as_str().into(), durable, quorum.clone());
                declared.await.map_err(Error::server)?;
                let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
                let key = at.to_string();
                let bound =
                    channel.queue_bind(queue.as_str().into(), EXCHANGE.into(), key.as_str().into(), options, arguments);
                bound.await.map_err(Error::server)?;
            }
        }
        Ok(())
    }

    async fn publish(&self, topic: usize, batch: &Batch) -> Outcome {
        let channel = &self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()];
        let key = topic.to_string();
        let mut confirms = Vec::with_capacity(batch.messages);
        for _ in 0..batch.messages {
            let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
            let (exchange, options) = (EXCHANGE.into(), BasicPublishOptions::default());
            let sent = channel.basic_publish(exchange, key.as_str().into(), options, &batch.body, properties);
            confirms.push(sent.await.map_err(Error::server)?);
        }
        for confirm in confirms {
            if !confirm.await.map_err(Error::server)?.is_ack() {
                return Err(Error::Server("a message was not confirmed".to_owned()));
            }
        }
        Ok(())
    }

    async fn consume(&self, subscription: usize, received: &AtomicU64, stop: CancellationToken) -> Outcome {
        let channel = self.connection.create_channel().await.map_err(Error::server)?;
        channel.basic_qos(OUTSTANDING_MAX, BasicQosOptions::default()).await.map_err(Error::server)?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let queue = queue(0, subscription);
        let consumer = channel.basic_consume(queue.as_str().into(), queue.as_str().into(), options, arguments);
        let mut deliveries = consumer.await.map_err(Error::server)?.ready_chunks(ACKED_TOGETHER);
        loop {
            let chunk = tokio::select! {
                chunk = deliveries.next() => chunk,
                () = stop.cancelled() => return Ok(()),
            };
            let chunk = chunk.ok_or_else(|| Error::Server("the consumer ended".to_owned()))?;
            let count = chunk.len() as u64;
            let Some(last) = chunk.into_iter().last() else { continue };
            let acked = last.map_err(Error::server)?;
            acked.ack(BasicAckOptions { multiple: true }).await.map_err(Error::server)?;
            received.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn queue(topic: usize, number: usize) -> String {
    format!("bench-{topic}-{number}")
}
