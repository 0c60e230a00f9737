//! The parts of the stack, under the names that people type.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use clap::ValueEnum as _;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

/// How many instances a part may have.
pub const INSTANCES_MAX: u16 = 16;

/// A kind of process of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A server of the NATS cluster that keeps the broker's journal, in a stack past one machine.
    Nats,
    /// The PostgreSQL server with the books of the services, in a stack past one machine.
    Postgres,
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
    /// Renders invoices.
    InvoiceWorker,
}

impl Part {
    /// Every part of the suite, which each stack has.
    pub const ALL: [Self; 6] = [
        Self::Broker,
        Self::Acquirer,
        Self::OrderService,
        Self::PaymentService,
        Self::NotificationService,
        Self::InvoiceWorker,
    ];

    /// The order in which parts start; those of one step start together. The broker applies the topology, and a service whose
    /// subscription is missing gives up.
    pub(crate) const START_STEPS: [&'static [Self]; 3] = [
        &[Self::Nats, Self::Postgres],
        &[Self::Broker],
        &[Self::Acquirer, Self::OrderService, Self::PaymentService, Self::NotificationService, Self::InvoiceWorker],
    ];

    /// The order in which parts stop: whoever needs another goes before it. The parts of one step stop together.
    pub(crate) const STOP_STEPS: [&'static [Self]; 4] = [
        &[Self::OrderService, Self::PaymentService, Self::NotificationService, Self::InvoiceWorker],
        &[Self::Acquirer],
        &[Self::Broker],
        &[Self::Nats, Self::Postgres],
    ];

    /// The name that commands and logs use, which is the subcommand that runs the part, too, if it is ours.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Postgres => "postgres",
            Self::Broker => "broker",
            Self::Acquirer => "acquirer",
            Self::OrderService => "order-service",
            Self::PaymentService => "payment-service",
            Self::NotificationService => "notification-service",
            Self::InvoiceWorker => "invoice-worker",
        }
    }

    /// Whether several of them share the work of one queue.
    pub fn shares_work(self) -> bool {
        match self {
            Self::PaymentService | Self::NotificationService | Self::InvoiceWorker => true,
            Self::Nats | Self::Postgres | Self::Broker | Self::Acquirer | Self::OrderService => false,
        }
    }

    /// What lets the part finish what it has in hand and end.
    pub(crate) fn stop_signal(self) -> Signal {
        match self {
            // At SIGTERM it waits for its clients, who have no reason to go.
            Self::Postgres => Signal::INT,
            _ => Signal::TERM,
        }
    }

    /// What ends the part, and all processes that belong to it, at once.
    pub(crate) fn end_signal(self) -> Signal {
        match self {
            // Its own children would outlive a SIGKILL for a moment.
            Self::Postgres => Signal::QUIT,
            _ => Signal::KILL,
        }
    }

    /// Where the part listens unless it is told otherwise.
    pub(crate) fn usual_address(self) -> SocketAddr {
        let port = match self {
            Self::Nats => 14222,
            Self::Postgres => 15432,
            Self::Broker => 8085,
            Self::Acquirer => 8070,
            Self::OrderService => 50051,
            Self::PaymentService => 50052,
            Self::NotificationService => 50053,
            Self::InvoiceWorker => 50054,
        };
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    /// The environment variable that sets where the part listens. The runner's flag has the same name in lower case.
    pub fn listen_variable(self) -> &'static str {
        match self {
            Self::Nats => "NATS_LISTEN",
            Self::Postgres => "POSTGRES_LISTEN",
            Self::Broker => "BROKER_LISTEN",
            Self::Acquirer => "ACQUIRER_LISTEN",
            Self::OrderService => "ORDER_LISTEN",
            Self::PaymentService => "PAYMENT_LISTEN",
            Self::NotificationService => "NOTIFICATION_LISTEN",
            Self::InvoiceWorker => "INVOICE_LISTEN",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One process of the stack: the first of a part has the part's name, others a number after it (`payment-service-2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Instance {
    /// What it is.
    pub part: Part,
    /// Which of them, from 1.
    pub number: u16,
}

/// A name that no process of a stack can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no part of a stack, such as payment-service or payment-service-2")]
pub struct UnknownInstance(String);

impl From<Part> for Instance {
    fn from(part: Part) -> Self {
        Self { part, number: 1 }
    }
}

impl From<Instance> for String {
    fn from(instance: Instance) -> Self {
        instance.to_string()
    }
}

impl TryFrom<String> for Instance {
    type Error = UnknownInstance;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            1 => f.pad(self.part.name()),
            number => f.pad(&format!("{}-{number}", self.part.name())),
        }
    }
}

impl FromStr for Instance {
    type Err = UnknownInstance;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownInstance(name.to_owned());
        if let Ok(part) = Part::from_str(name, false) {
            return Ok(part.into());
        }
        let (part, number) = name.rsplit_once('-').ok_or_else(unknown)?;
        let part = Part::from_str(part, false).map_err(|_| unknown())?;
        let number = number.parse().ok().filter(|number| (2..=INSTANCES_MAX).contains(number));
        number.map(|number| Self { part, number }).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_knows_parts_and_instances_by_their_names() {
        for &part in Part::value_variants() {
            assert_eq!(<Part as clap::ValueEnum>::from_str(part.name(), false), Ok(part));
            for number in [1, 2, INSTANCES_MAX] {
                let instance = Instance { part, number };
                assert_eq!(instance.to_string().parse(), Ok(instance));
            }
        }
    }

    #[test]
    fn what_is_no_instance_is_refused_with_its_name() {
        for name in ["", "broken", "payment-service-", "payment-service-0", "payment-service-1", "payment-service-17"] {
            assert_eq!(name.parse::<Instance>(), Err(UnknownInstance(name.to_owned())));
        }
    }

    #[test]
    fn every_part_starts_and_stops_exactly_once() {
        let mut all = Part::value_variants().to_vec();
        all.sort();
        for mut steps in [Part::START_STEPS.concat(), Part::STOP_STEPS.concat()] {
            steps.sort();
            assert_eq!(steps, all);
        }
    }
}
