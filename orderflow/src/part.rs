//! The parts of the stack, under the names that people type.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// One process of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The message broker.
    Broker,
    /// The simulated card acquirer.
    Acquirer,
    /// Takes orders.
    OrderService,
    /// Charges orders.
    PaymentService,
    /// Tells customers.
    NotificationService,
}

impl Part {
    /// Every part, in the order in which they start: the broker first, since it applies the topology, and a service
    /// whose subscription is missing gives up.
    pub const ALL: [Self; 5] =
        [Self::Broker, Self::Acquirer, Self::OrderService, Self::PaymentService, Self::NotificationService];

    /// The order in which parts stop: whoever needs another goes before it. The parts of one step stop together.
    pub(crate) const STOP_STEPS: [&'static [Self]; 3] =
        [&[Self::OrderService, Self::PaymentService, Self::NotificationService], &[Self::Acquirer], &[Self::Broker]];

    /// The name that commands and logs use, which is the subcommand that runs the part, too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Acquirer => "acquirer",
            Self::OrderService => "order-service",
            Self::PaymentService => "payment-service",
            Self::NotificationService => "notification-service",
        }
    }

    /// Where the part listens unless it is told otherwise.
    pub(crate) fn usual_address(self) -> SocketAddr {
        let port = match self {
            Self::Broker => 8085,
            Self::Acquirer => 8070,
            Self::OrderService => 50051,
            Self::PaymentService => 50052,
            Self::NotificationService => 50053,
        };
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    /// The environment variable that sets where the part listens. The runner's flag has the same name in lower case.
    pub fn listen_variable(self) -> &'static str {
        match self {
            Self::Broker => "BROKER_LISTEN",
            Self::Acquirer => "ACQUIRER_LISTEN",
            Self::OrderService => "ORDER_LISTEN",
            Self::PaymentService => "PAYMENT_LISTEN",
            Self::NotificationService => "NOTIFICATION_LISTEN",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn the_command_line_knows_parts_by_their_names() {
        for part in Part::ALL {
            assert_eq!(Part::from_str(part.name(), false), Ok(part));
        }
    }

    #[test]
    fn every_part_stops_exactly_once() {
        let mut stopped: Vec<Part> = Part::STOP_STEPS.concat();
        stopped.sort();
        assert_eq!(stopped, Part::ALL);
    }
}
