//! Ports that no other lab has.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use crate::dashboard::Listen;
use crate::part::Part;
use crate::up::{Config, Scale};

/// Where the ports of labs begin. They end below the range from which the system takes ports for outgoing connections: a
/// part that is down must find its port free when it comes back.
const FIRST_PORT: u16 = 30_080;
/// Ports of one lab: one to hold the claim, one for each part and two for a NATS server, and ten more for each further
/// instance of a part.
const BLOCK_PORTS: u16 = 64;
/// How many labs can run at the same time.
const BLOCKS: u16 = 42;

/// Ports of one lab. Whoever listens on the first one has them all.
#[derive(Debug)]
pub(super) struct Block {
    first: u16,
    _claim: TcpListener,
}

impl Block {
    /// Finds ports that nobody uses.
    pub(super) fn claim() -> io::Result<Self> {
        let begin = fastrand::u16(0..BLOCKS);
        (0..BLOCKS)
            .map(|step| FIRST_PORT + (begin + step) % BLOCKS * BLOCK_PORTS)
            .find_map(|first| {
                let claim = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()?;
                let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
                (first + 1..first + BLOCK_PORTS).all(free).then_some(Self { first, _claim: claim })
            })
            .ok_or_else(|| io::ErrorKind::AddrInUse.into())
    }

    /// A stack on these ports.
    pub(super) fn config(&self, data_dir: PathBuf, instances: Vec<(Part, u16)>, scale: Scale) -> Config {
        let listen = |number: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, self.first + number));
        Config {
            data_dir,
            broker_listen: listen(1),
            acquirer_listen: listen(2),
            order_listen: listen(3),
            payment_listen: listen(4),
            notification_listen: listen(5),
            invoice_listen: listen(6),
            instances,
            scale,
            // The first of three takes the next port as well.
            nats_listen: listen(7),
            postgres_listen: listen(9),
            metrics: false,
            dashboard_listen: Listen::Off,
            verbose: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::LAB_INSTANCES_MAX;

    #[test]
    fn two_labs_never_share_a_port() {
        let (one, other) = (Block::claim().unwrap(), Block::claim().unwrap());
        assert!(one.first.abs_diff(other.first) >= BLOCK_PORTS);
    }

    #[test]
    fn every_instance_has_its_port_in_the_block_and_below_the_systems_own() {
        // Past one machine the first port of a part is its door.
        const { assert!(9 + 10 * LAB_INSTANCES_MAX < BLOCK_PORTS) };
        const { assert!(FIRST_PORT + BLOCKS * BLOCK_PORTS <= 32_768) };
    }
}
