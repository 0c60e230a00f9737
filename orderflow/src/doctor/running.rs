//! A running stack: how its parts are, and what waits in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use broker::EngineName;
use orderflow_proto::orderflow::broker::v1::SubscriptionStats;
use tokio::time::timeout;

use super::{Finding, servers};
use crate::acquirer::{AcquirerClient, Behaviour, Mode};
use crate::part::{Instance, Part};
use crate::up::{self, PartStatus, Reply, Request, metrics_address, quoted};
use crate::{dead_letters, queues};

/// How long each part gets for an answer, in milliseconds.
const ANSWER_MS_MAX: u64 = 10_000;
/// A message that has waited for longer is worth a look, in seconds.
const WAIT_S_MAX: i64 = 60;
/// How long a page of figures may take, in milliseconds.
const FIGURES_MS_MAX: u64 = 2_000;

/// Asks the runner of the folder, and its parts.
pub(super) async fn check(data_dir: &Path) -> Vec<Finding> {
    match up::ask(data_dir, Request::Status).await {
        Ok(Reply::Status { parts, doors, .. }) => {
            about(&parts, &doors, data_dir, Duration::from_millis(ANSWER_MS_MAX)).await
        }
        Ok(_) => vec![unclear("it gave another answer")],
        Err(error) => vec![unclear(&error.to_string())],
    }
}

/// What the parts tell of themselves, and of what waits in them.
async fn about(
    parts: &[PartStatus],
    doors: &BTreeMap<Part, SocketAddr>,
    data_dir: &Path,
    within: Duration,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = parts.iter().filter_map(|part| unwell(part, data_dir)).collect();
    if findings.is_empty() {
        findings.push(Finding::ok("parts", "all are well"));
    }
    let address = |part: Part| {
        let status = parts.iter().find(|status| status.part.part == part && status.healthy)?;
        Some(format!("http://{}", doors.get(&part).map_or_else(|| status.address.clone(), SocketAddr::to_string)))
    };
    if let Some(broker) = address(Part::Broker) {
        let silent = |_| vec![silent(Part::Broker, format!("it did not answer within {within:?}"), data_dir)];
        findings.extend(timeout(within, waiting(&broker, data_dir)).await.unwrap_or_else(silent));
    }
    if let Some(acquirer) = address(Part::Acquirer) {
        match AcquirerClient::new(&acquirer, within).behaviour().await {
            Ok(Behaviour { mode: Mode::Normal, .. }) => {}
            Ok(behaviour) => findings.push(misbehaves(&acquirer, behaviour)),
            Err(error) => findings.push(silent(Part::Acquirer, error.to_string(), data_dir)),
        }
    }
    let nats = parts.iter().filter(|part| part.part.part == Part::Nats).map(|part| part.address.as_str());
    let nats = format!("nats://{}", nats.collect::<Vec<_>>().join(","));
    if let Ok(engine) = nats.parse() {
        findings.push(servers::journal(&engine, &EngineName::default()).await);
    }
    for part in parts.iter().filter(|part| part.healthy) {
        findings.extend(breakers(part).await);
    }
    findings
}

fn misbehaves(acquirer: &str, Behaviour { mode, percent }: Behaviour) -> Finding {
    let says = format!("it was told to misbehave ({mode:?}, {percent} % of its answers)");
    let remedy = format!(
        "curl -X PUT {acquirer}/v1/behaviour -H 'content-type: application/json' -d '{{\"mode\": \"normal\"}}'"
    );
    Finding::warning(Part::Acquirer, says, remedy)
}

/// A part that the runner calls healthy, and that does not tell what it is asked.
fn silent(part: Part, says: String, data_dir: &Path) -> Finding {
    Finding::problem(part, says, format!("{} may say why", log(part, data_dir)))
}

/// The log of a part, as a word to paste.
fn log(part: impl Into<Instance>, data_dir: &Path) -> String {
    let path = data_dir.join("logs").join(format!("{}.log", part.into()));
    format!("`{}`", quoted(&path.to_string_lossy()))
}

fn unclear(says: &str) -> Finding {
    Finding::problem("runner", format!("it holds the folder, but can't be asked: {says}"), "end it, and start it again")
}

fn unwell(status: &PartStatus, data_dir: &Path) -> Option<Finding> {
    if status.healthy {
        return None;
    }
    let PartStatus { part, state, .. } = status;
    let folder = quoted(&data_dir.to_string_lossy());
    let remedy = match status.pid {
        None => format!("`orderflow start {part} --data-dir {folder}`"),
        Some(_) => format!("{} may say why", log(*part, data_dir)),
    };
    Some(Finding::problem(part, state, remedy))
}

/// What a part waits for, where it has a page of figures (`orderflow up --metrics`). Without one nothing is found.
async fn breakers(status: &PartStatus) -> Vec<Finding> {
    let page = status.address.parse::<SocketAddr>().ok().and_then(metrics_address);
    let Some(page) = page else { return Vec::new() };
    // A client for any HTTP server, in truth.
    let client = AcquirerClient::new(&format!("http://{page}"), Duration::from_millis(FIGURES_MS_MAX));
    let Ok(figures) = client.call(Method::GET, "/metrics", &[], String::new()).await else { return Vec::new() };
    let open = open_breakers(&String::from_utf8_lossy(&figures.body));
    let finding = |of: String| {
        let says = format!("it waits for the {of}: its circuit breaker is open");
        Finding::warning(status.part, says, format!("look at the {of}; it goes on by itself once that answers"))
    };
    open.into_iter().map(finding).collect()
}

/// What the open circuit breakers of a page of figures stand in front of.
fn open_breakers(figures: &str) -> Vec<String> {
    let of = |line: &str| Some(line.strip_prefix("orderflow_breaker_open{of=\"")?.strip_suffix("\"} 1")?.to_owned());
    figures.lines().filter_map(of).collect()
}

/// Dead letters, and queues in which something waits for too long.
async fn waiting(broker: &str, data_dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    match dead_letters::list(broker).await.map(|letters| letters.len()) {
        Ok(0) => findings.push(Finding::ok("dead letters", "there are none")),
        Ok(count) => {
            let says = format!("{count} message(s) could not be handled");
            let folder = quoted(&data_dir.to_string_lossy());
            let remedy = format!("`orderflow dead-letters list --data-dir {folder}` says why");
            findings.push(Finding::warning("dead letters", says, remedy));
        }
        Err(error) => findings.push(Finding::problem("dead letters", error, "look at the broker's log")),
    }
    match queues::ask(broker).await {
        Ok(queues) => {
            let stuck: Vec<Finding> = queues.iter().filter_map(|queue| stuck(queue, data_dir)).collect();
            let fine = stuck.is_empty().then(|| Finding::ok("queues", "nothing waits for long"));
            findings.extend(stuck.into_iter().chain(fine));
        }
        Err(error) => findings.push(Finding::problem("queues", error, "look at the broker's log")),
    }
    findings
}

/// A queue of the suite that does not move.
fn stuck(queue: &SubscriptionStats, data_dir: &Path) -> Option<Finding> {
    let name = queue.subscription.rsplit('/').next()?;
    let part = Part::ALL.into_iter().find(|part| name.starts_with(&format!("{}.", part.name())))?;
    let age_s = queue.oldest_unacked_age.map_or(0, |age| age.seconds);
    let (backlog, folder) = (queue.backlog_messages, quoted(&data_dir.to_string_lossy()));
    if backlog > 0 && queue.consumers == 0 {
        let says = format!("{backlog} message(s) wait, and nobody takes them");
        return Some(Finding::warning(name, says, format!("`orderflow start {part} --data-dir {folder}`")));
    }
    let says =
        format!("{backlog} message(s) wait, the oldest for {age_s} s: the circuit is open, or {part} is too slow");
    let remedy = format!("{} says what it waits for", log(part, data_dir));
    (backlog > 0 && age_s > WAIT_S_MAX).then(|| Finding::warning(name, says, remedy))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::doctor::Level;

    fn queue(backlog_messages: u64, consumers: u32, age_s: i64) -> SubscriptionStats {
        SubscriptionStats {
            subscription: "projects/orderflow/subscriptions/payment-service.order-events".to_owned(),
            backlog_messages,
            consumers,
            oldest_unacked_age: Some(prost_types::Duration { seconds: age_s, nanos: 0 }),
            ..SubscriptionStats::default()
        }
    }

    #[tokio::test]
    async fn a_part_that_is_called_healthy_and_does_not_answer_is_a_problem() {
        // They take connections and say nothing.
        let listeners = [Part::Broker, Part::Acquirer].map(|part| (part, TcpListener::bind("127.0.0.1:0").unwrap()));
        let status = |(part, listener): &(Part, TcpListener)| PartStatus {
            part: (*part).into(),
            pid: Some(1),
            healthy: true,
            address: listener.local_addr().unwrap().to_string(),
            state: "healthy".to_owned(),
        };
        let parts: Vec<_> = listeners.iter().map(status).collect();
        let findings = about(&parts, &BTreeMap::new(), Path::new("my data"), Duration::from_millis(20)).await;
        for part in [Part::Broker, Part::Acquirer] {
            let finding = findings.iter().find(|finding| finding.about == part.name()).unwrap();
            assert_eq!(finding.level, Level::Problem);
            assert!(finding.says.ends_with("did not answer within 20ms"), "{finding:?}");
            assert_eq!(finding.remedy, Some(format!("`'my data/logs/{part}.log'` may say why")));
        }
    }

    #[test]
    fn an_open_breaker_is_told_and_a_closed_one_is_not() {
        let figures = "# TYPE orderflow_breaker_open gauge\norderflow_breaker_open{of=\"acquirer\"} 1\n\
             orderflow_breaker_open{of=\"database\"} 0\norderflow_other{of=\"x\"} 1\n";
        assert_eq!(open_breakers(figures), ["acquirer"]);
        assert!(open_breakers("").is_empty() && open_breakers("<html>").is_empty());
    }

    #[test]
    fn a_queue_that_does_not_move_is_told_with_the_part_that_should_move_it() {
        let stuck = |queue: SubscriptionStats| stuck(&queue, Path::new(".orderflow"));
        assert_eq!(stuck(queue(0, 0, 0)), None);
        assert_eq!(stuck(queue(5, 1, WAIT_S_MAX)), None);
        let slow = stuck(queue(5, 1, WAIT_S_MAX + 1)).unwrap();
        assert!(slow.says.contains("61 s") && slow.remedy.unwrap().contains("payment-service.log"));
        let alone = stuck(queue(5, 0, 1)).unwrap();
        assert!(alone.says.contains("nobody takes them") && alone.remedy.unwrap().contains("start payment-service"));
        let foreign =
            SubscriptionStats { subscription: "projects/p/subscriptions/history".to_owned(), ..queue(5, 0, 99) };
        assert_eq!(stuck(foreign), None, "a subscription of somebody else may wait for as long as it likes");
    }
}
