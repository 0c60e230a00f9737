//! A running stack: how its parts are, and what waits in it.

use std::path::Path;
use std::time::Duration;

use orderflow_proto::orderflow::broker::v1::SubscriptionStats;
use tokio::time::timeout;

use super::Finding;
use crate::acquirer::{AcquirerClient, Mode};
use crate::part::Part;
use crate::up::{self, PartStatus, Reply, Request};
use crate::{dead_letters, queues};

/// How long the runner and each part get for an answer, in milliseconds.
const ANSWER_MS_MAX: u64 = 10_000;
/// A message that has waited for longer is worth a look, in seconds.
const WAIT_S_MAX: i64 = 60;

/// Asks the runner of the folder, and its parts.
pub(super) async fn check(data_dir: &Path) -> Vec<Finding> {
    let within = Duration::from_millis(ANSWER_MS_MAX);
    let parts = match timeout(within, up::ask(data_dir, Request::Status)).await {
        Ok(Ok(Reply::Status { parts })) => parts,
        Ok(Ok(_)) => return vec![unclear("it gave another answer")],
        Ok(Err(error)) => return vec![unclear(&error.to_string())],
        Err(_) => return vec![unclear("it does not answer")],
    };
    let mut findings: Vec<Finding> = parts.iter().filter_map(|part| unwell(part, data_dir)).collect();
    if findings.is_empty() {
        findings.push(Finding::ok("parts", "all are well"));
    }
    let address = |part: Part| {
        let status = parts.iter().find(|status| status.part == part.into() && status.healthy);
        status.map(|status| format!("http://{}", status.address))
    };
    if let Some(broker) = address(Part::Broker) {
        findings.extend(timeout(within, waiting(&broker, data_dir)).await.unwrap_or_default());
    }
    if let Some(acquirer) = address(Part::Acquirer)
        && let Ok(behaviour) = AcquirerClient::new(&acquirer, within).behaviour().await
        && behaviour.mode != Mode::Normal
    {
        let says = format!("it was told to misbehave ({:?}, {} % of its answers)", behaviour.mode, behaviour.percent);
        let remedy = format!(
            "curl -X PUT {acquirer}/v1/behaviour -H 'content-type: application/json' -d '{{\"mode\": \"normal\"}}'"
        );
        findings.push(Finding::warning("acquirer", says, remedy));
    }
    findings
}

fn unclear(says: &str) -> Finding {
    Finding::problem("runner", format!("it holds the folder, but can't be asked: {says}"), "end it, and start it again")
}

fn unwell(status: &PartStatus, data_dir: &Path) -> Option<Finding> {
    if status.healthy {
        return None;
    }
    let PartStatus { part, state, .. } = status;
    let folder = data_dir.display();
    let remedy = match status.pid {
        None => format!("`orderflow start {part} --data-dir {folder}`"),
        Some(_) => format!("`{folder}/logs/{part}.log` may say why"),
    };
    Some(Finding::problem(part, state, remedy))
}

/// Dead letters, and queues in which something waits for too long.
async fn waiting(broker: &str, data_dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    match dead_letters::list(broker).await.map(|letters| letters.len()) {
        Ok(0) => findings.push(Finding::ok("dead letters", "there are none")),
        Ok(count) => {
            let says = format!("{count} message(s) could not be handled");
            let remedy = format!("`orderflow dead-letters list --data-dir {}` says why", data_dir.display());
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
    let (backlog, folder) = (queue.backlog_messages, data_dir.display());
    if backlog > 0 && queue.consumers == 0 {
        let says = format!("{backlog} message(s) wait, and nobody takes them");
        return Some(Finding::warning(name, says, format!("`orderflow start {part} --data-dir {folder}`")));
    }
    let says =
        format!("{backlog} message(s) wait, the oldest for {age_s} s: the circuit is open, or {part} is too slow");
    let remedy = format!("`{folder}/logs/{part}.log` says what it waits for");
    (backlog > 0 && age_s > WAIT_S_MAX).then(|| Finding::warning(name, says, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(backlog_messages: u64, consumers: u32, age_s: i64) -> SubscriptionStats {
        SubscriptionStats {
            subscription: "projects/orderflow/subscriptions/payment-service.order-events".to_owned(),
            backlog_messages,
            consumers,
            oldest_unacked_age: Some(prost_types::Duration { seconds: age_s, nanos: 0 }),
            ..SubscriptionStats::default()
        }
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
