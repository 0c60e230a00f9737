//! What the page shows: which parts there are, where they answer, and who can kill them.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::wire::PartState;
use crate::audit::{Addresses, Error};
use crate::part::{Instance, Part, UnknownInstance};
use crate::up::{Program, Stack};

/// How long a part may take to answer one call of the page.
pub(super) const CALL_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How often a silent connection is asked for a sign of life, and how long that may take.
const ALIVE: Duration = Duration::from_secs(2);

/// How people kill, stop and start parts.
#[derive(Clone, Debug)]
pub(crate) enum Commands {
    /// By this program.
    Runner(Program),
    /// By docker-compose, whose services have the names of the parts.
    Compose,
}

impl Commands {
    fn of(&self, part: Instance) -> BTreeMap<&'static str, String> {
        ["kill", "stop", "start"].into_iter().map(|verb| (verb, self.command(verb, part))).collect()
    }

    pub(super) fn command(&self, verb: &str, part: Instance) -> String {
        match self {
            Self::Runner(program) => program.command(&format!("{verb} {part}")),
            Self::Compose => format!("docker-compose {verb} {part}"),
        }
    }
}

/// A part, and where it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) instance: Instance,
    /// `http://HOST:PORT`
    pub(crate) url: String,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not NAME=URL, as payment-service-2=http://host:50052 is"))?;
        let instance = name.trim().parse().map_err(|unknown: UnknownInstance| unknown.to_string())?;
        Ok(Self { instance, url: url.trim().to_owned() })
    }
}

/// The stack that the page shows.
pub(crate) struct Site {
    pub(crate) addresses: Addresses,
    pub(crate) parts: Vec<Watched>,
    pub(crate) commands: Commands,
    /// The stack itself, where this process runs it.
    pub(crate) owned: Option<Arc<Stack>>,
}

/// What was seen of a part when it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// It answers.
    pub(super) alive: bool,
    /// It says that it can work.
    pub(super) healthy: bool,
}

impl Site {
    /// A stack that this process runs.
    pub(crate) fn owned(stack: Arc<Stack>) -> Self {
        let url = |instance: Instance| format!("http://{}", stack.layout().reach(instance));
        let parts = stack.instances().map(|instance| Watched { instance, url: url(instance) }).collect();
        let addresses = stack.layout().addresses();
        let commands = Commands::Runner(stack.program().clone());
        Self { addresses, parts, commands, owned: Some(stack) }
    }

    /// A stack that others run. One of each part is watched where the part is called, unless `instances` says where it is;
    /// those that it names beyond that are watched as well.
    pub(crate) fn elsewhere(
        addresses: Addresses,
        invoice_worker: String,
        instances: Vec<Watched>,
        commands: Commands,
    ) -> Result<Self, Error> {
        let usual = [
            (Part::Broker, &addresses.broker),
            (Part::Acquirer, &addresses.acquirer),
            (Part::OrderService, &addresses.order_service),
            (Part::PaymentService, &addresses.payment_service),
            (Part::NotificationService, &addresses.notification_service),
            (Part::InvoiceWorker, &invoice_worker),
        ];
        let usual = usual.map(|(part, url)| (Instance::from(part), url.clone()));
        let told = instances.into_iter().map(|Watched { instance, url }| (instance, url));
        let parts: BTreeMap<_, _> = usual.into_iter().chain(told).collect();
        let parts: Vec<_> = parts.into_iter().map(|(instance, url)| Watched { instance, url }).collect();
        for part in &parts {
            channel(&part.url)?;
        }
        Ok(Self { addresses, parts, commands, owned: None })
    }

    pub(super) fn data_dir(&self) -> Option<&Path> {
        Some(self.owned.as_ref()?.layout().data_dir())
    }

    /// Whether a part has a process, as far as this process can know.
    pub(super) fn has_process(&self, instance: Instance) -> Option<bool> {
        let processes = self.owned.as_ref()?.processes();
        processes.into_iter().find(|process| process.part == instance).map(|process| process.pid.is_some())
    }

    /// How all parts are: their processes now, and what was seen when they were asked last.
    pub(super) fn parts(&self, seen: &BTreeMap<Instance, Seen>) -> Vec<PartState> {
        let mut processes = self.owned.as_ref().map(|stack| stack.processes());
        let part = |watched: &Watched| {
            let Seen { alive, healthy } = seen.get(&watched.instance).copied().unwrap_or_default();
            let mut state = PartState {
                part: watched.instance.to_string(),
                kind: watched.instance.part.name(),
                address: watched.url.trim_start_matches("http://").to_owned(),
                pid: None,
                alive,
                healthy,
                state: if alive { "running, but not ready" } else { "does not answer" }.to_owned(),
                commands: self.commands.of(watched.instance),
            };
            let processes = processes.iter_mut().flatten();
            if let Some(process) = processes.into_iter().find(|process| process.part == watched.instance) {
                state.pid = process.pid;
                state.alive = process.pid.is_some();
                state.healthy &= state.alive;
                state.state = std::mem::take(&mut process.state);
            }
            if state.healthy {
                "healthy".clone_into(&mut state.state);
            }
            state
        };
        self.parts.iter().map(part).collect()
    }
}

/// A connection that is made when it is needed, and made again when it was lost. Calls on it end in time; streams last.
pub(super) fn channel(url: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(url.to_owned());
    let endpoint = endpoint.map_err(|source| Error::Address { url: url.to_owned(), source })?;
    let endpoint = endpoint.connect_timeout(CONNECT_WITHIN).timeout(CALL_WITHIN);
    Ok(endpoint.http2_keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE).connect_lazy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(instances: &[&str]) -> Result<Site, Error> {
        let url = |part: &str| format!("http://{part}:1");
        let addresses = Addresses {
            broker: url("broker"),
            acquirer: url("acquirer"),
            order_service: url("order-service"),
            payment_service: url("payment-service"),
            notification_service: url("notification-service"),
        };
        let instances = instances.iter().map(|text| text.parse().unwrap()).collect();
        Site::elsewhere(addresses, url("invoice-worker"), instances, Commands::Compose)
    }

    #[tokio::test]
    async fn instances_are_watched_beside_the_parts_or_in_their_place() {
        let watched = |instances: &[&str]| -> Vec<String> {
            let parts = site(instances).unwrap().parts;
            parts.iter().map(|part| format!("{} {}", part.instance, part.url)).collect()
        };
        assert_eq!(watched(&[]).len(), Part::ALL.len());
        let watched = watched(&["broker=http://broker-1:1", "broker-2=http://broker-2:1"]);
        assert_eq!(
            watched[..3],
            ["broker http://broker-1:1", "broker-2 http://broker-2:1", "acquirer http://acquirer:1"]
        );
        assert_eq!(watched.len(), Part::ALL.len() + 1);
    }

    #[tokio::test]
    async fn what_is_no_instance_or_has_no_address_is_refused() {
        for (text, why) in [("broker-2", "is not NAME=URL"), ("nobody=http://host:1", "`nobody`")] {
            let refused = text.parse::<Watched>().unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        assert!(site(&["broker-2=no address"]).is_err());
    }
}
