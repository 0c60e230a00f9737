//! What the page shows: which parts there are, where they answer, and who can kill them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::wire::PartState;
use crate::audit::{Addresses, Error};
use crate::part::{Instance, Part};
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
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) instance: Instance,
    /// `http://HOST:PORT`
    pub(crate) url: String,
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
        let addresses = Addresses {
            broker: url(Part::Broker.into()),
            acquirer: url(Part::Acquirer.into()),
            order_service: url(Part::OrderService.into()),
            payment_service: url(Part::PaymentService.into()),
            notification_service: url(Part::NotificationService.into()),
        };
        let commands = Commands::Runner(stack.program().clone());
        Self { addresses, parts, commands, owned: Some(stack) }
    }

    /// A stack that others run.
    pub(crate) fn elsewhere(addresses: Addresses, invoice_worker: String, commands: Commands) -> Result<Self, Error> {
        let url = |part| match part {
            Part::Broker => &addresses.broker,
            Part::Acquirer => &addresses.acquirer,
            Part::OrderService => &addresses.order_service,
            Part::PaymentService => &addresses.payment_service,
            Part::NotificationService => &addresses.notification_service,
            Part::InvoiceWorker => &invoice_worker,
        };
        let parts: Vec<_> = Part::ALL.map(|part| Watched { instance: part.into(), url: url(part).clone() }).into();
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
