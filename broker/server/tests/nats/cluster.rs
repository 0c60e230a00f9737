//! NATS servers that are killed, and come back with what they had.

use std::fs;
use std::net::TcpListener;
use std::process::Child;
use std::time::Instant;

use tempfile::TempDir;

use crate::engine::{end, run};
use crate::harness::PATIENCE;

/// NATS servers on ports of their own, one that stands alone or three that keep everything three times.
pub(crate) struct NatsCluster {
    dir: TempDir,
    servers: Vec<Child>,
    ports: Vec<u16>,
}

impl NatsCluster {
    pub(crate) fn start(size: usize) -> Self {
        let begun = Instant::now();
        loop {
            let cluster = Self::try_start(size);
            if cluster.listens() {
                return cluster;
            }
            assert!(begun.elapsed() < PATIENCE, "the ports are always taken");
        }
    }

    /// False when somebody else was faster at one of the ports.
    fn listens(&self) -> bool {
        let begun = Instant::now();
        let says = |server: usize| {
            fs::read_to_string(self.dir.path().join(server.to_string()).join("nats.conf.log")).unwrap_or_default()
        };
        (0..self.len()).all(|server| {
            loop {
                let log = says(server);
                if log.contains("address already in use") {
                    return false;
                }
                if log.contains("Server is ready") && (self.len() == 1 || log.contains("for route connections")) {
                    return true;
                }
                assert!(begun.elapsed() < PATIENCE, "nats-server does not start; is it in the PATH? {log}");
                std::thread::yield_now();
            }
        })
    }

    fn try_start(size: usize) -> Self {
        let dir = TempDir::new().unwrap();
        // Held together, so that they differ; a server that is killed comes back at its own.
        let held: Vec<_> = (0..2 * size).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(held);
        let (ports, routes) = ports.split_at(size);
        let peers: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut servers = Vec::new();
        for (number, (port, route)) in ports.iter().zip(routes).enumerate() {
            let own = dir.path().join(number.to_string());
            fs::create_dir(&own).unwrap();
            let cluster =
                format!("cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{}] }}\n", peers.join(", "));
            let config = format!(
                "server_name: n{number}\nlisten: 127.0.0.1:{port}\n\
                 jetstream {{ store_dir: {:?}, sync_interval: always }}\n{}",
                own.join("store"),
                if size > 1 { cluster.as_str() } else { "" },
            );
            fs::write(own.join("nats.conf"), config).unwrap();
            servers.push(run(&own));
        }
        Self { dir, servers, ports: ports.to_vec() }
    }

    pub(crate) fn urls(&self) -> String {
        let hosts: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("nats://{}", hosts.join(","))
    }

    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, server: usize) {
        end(&mut self.servers[server]);
    }

    pub(crate) fn restart(&mut self, server: usize) {
        self.servers[server] = run(&self.dir.path().join(server.to_string()));
    }
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        self.servers.iter_mut().for_each(end);
    }
}
