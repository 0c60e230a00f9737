//! Where the parts answer: as flags and environment say, else as the stack says that runs in the folder, else where they
//! usually listen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use crate::audit::Addresses;
use crate::dashboard;
use crate::part::Part;
use crate::up::{self, PartStatus, Reply, Request};

/// What flags and environment say, as `http://HOST:PORT`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Told {
    /// The broker
    #[arg(long, env = "BROKER_URL")]
    broker: Option<String>,
    /// The acquirer
    #[arg(long, env = "PAYMENT_ACQUIRER_URL")]
    acquirer: Option<String>,
    /// order-service
    #[arg(long, env = "ORDER_URL")]
    order_service: Option<String>,
    /// payment-service
    #[arg(long, env = "PAYMENT_URL")]
    payment_service: Option<String>,
    /// notification-service
    #[arg(long, env = "NOTIFICATION_URL")]
    notification_service: Option<String>,
}

/// What the stack says that runs in a folder, if one does.
#[derive(Debug, Default)]
pub(crate) struct Whereabouts {
    running: Vec<PartStatus>,
    page: Option<SocketAddr>,
    /// Where parts with several instances are called.
    doors: BTreeMap<Part, SocketAddr>,
}

impl Whereabouts {
    /// Asks the stack that runs in `data_dir`. What hangs is given up, and said: who asks goes on with what is usual.
    pub(crate) async fn of(data_dir: &Path) -> Self {
        match up::ask(data_dir, Request::Status).await {
            Ok(Reply::Status { parts, page, doors }) => Self { running: parts, page, doors },
            Err(error @ up::AskError::Silent { .. }) => {
                eprintln!("orderflow: {error}: the parts are looked for at their usual addresses");
                Self::default()
            }
            _ => Self::default(),
        }
    }

    /// Where the page is.
    pub(crate) fn page(&self) -> SocketAddr {
        self.page.unwrap_or_else(dashboard::usual_address)
    }

    /// Where a part is called.
    pub(crate) fn address(&self, part: Part) -> SocketAddr {
        if let Some(door) = self.doors.get(&part) {
            return *door;
        }
        let running = self.running.iter().find(|status| status.part == part.into());
        running.and_then(|status| status.address.parse().ok()).unwrap_or_else(|| part.usual_address())
    }

    /// The URL at which a part is called.
    pub(crate) fn url(&self, part: Part, told: Option<String>) -> String {
        told.unwrap_or_else(|| format!("http://{}", self.address(part)))
    }

    /// Where everybody is called who keeps books.
    pub(crate) fn addresses(&self, told: Told) -> Addresses {
        Addresses {
            broker: self.url(Part::Broker, told.broker),
            acquirer: self.url(Part::Acquirer, told.acquirer),
            order_service: self.url(Part::OrderService, told.order_service),
            payment_service: self.url(Part::PaymentService, told.payment_service),
            notification_service: self.url(Part::NotificationService, told.notification_service),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_goes_before_what_runs_and_that_before_what_is_usual() {
        let status = |part: Part, address: &str| PartStatus {
            part: part.into(),
            pid: None,
            healthy: false,
            address: address.to_owned(),
            state: String::new(),
        };
        let running = vec![status(Part::Broker, "127.0.0.1:1"), status(Part::Acquirer, "127.0.0.1:2")];
        let page = Some(SocketAddr::from(([127, 0, 0, 1], 3)));
        let mut whereabouts = Whereabouts { running, page, doors: BTreeMap::new() };
        let told = Told { broker: Some("http://elsewhere:3".to_owned()), ..Told::default() };
        let addresses = whereabouts.addresses(told);
        assert_eq!(addresses.broker, "http://elsewhere:3");
        assert_eq!(addresses.acquirer, "http://127.0.0.1:2");
        assert_eq!(addresses.order_service, "http://127.0.0.1:50051");
        whereabouts.doors.insert(Part::Acquirer, SocketAddr::from(([127, 0, 0, 1], 4)));
        assert_eq!(
            whereabouts.addresses(Told::default()).acquirer,
            "http://127.0.0.1:4",
            "a door is for all behind it"
        );
        assert_eq!((Some(whereabouts.page()), Whereabouts::default().page().port()), (page, 8_080));
    }
}
