//! Servers that others wrote: whether they are installed where a stack wants them, and whether the cluster of a journal is well.

use broker::{EngineAddress, EngineName, JournalState, StreamState};

use super::Finding;
use crate::up::Scale;

const ABOUT: &str = "NATS";

/// Looks for the programs that a stack past one machine needs, if one is wanted.
pub(super) fn installed(scale: &Scale) -> Option<Finding> {
    let finding = |found| match found {
        Ok(_) => Finding::ok("servers", "NATS and PostgreSQL are installed and new enough"),
        Err(error) => Finding::problem("servers", error, "without it a stack with --scale can't be started"),
    };
    scale.scale.then(|| finding(scale.find()))
}

/// Asks the cluster that keeps a journal.
pub(super) async fn journal(servers: &EngineAddress, name: &EngineName) -> Finding {
    match JournalState::look(servers, name).await {
        Ok(state) => told(state),
        Err(error) => Finding::problem(ABOUT, error, "start the servers, or correct --engine (BROKER_ENGINE)"),
    }
}

fn told(JournalState { version, stream, owner }: JournalState) -> Finding {
    let Some(StreamState { replicas, leader, is_whole, changes, bytes }) = stream else {
        return Finding::ok(ABOUT, format!("version {version} answers; no broker has made a journal yet"));
    };
    let is = format!("{changes} change(s) of the journal, {bytes} bytes, are on {replicas} server(s)");
    let Some(leader) = leader else {
        return Finding::problem(
            ABOUT,
            "the journal has no leader, so that nothing is confirmed",
            "start the servers that are down",
        );
    };
    if !is_whole {
        return Finding::warning(
            ABOUT,
            format!("{is}, of which not all have everything"),
            "start the servers that are down",
        );
    }
    match owner {
        Some(owner) => Finding::ok(ABOUT, format!("{is}, led by {leader}; the broker at {owner} owns it")),
        None => Finding::warning(ABOUT, format!("{is}, and no broker owns it"), "start a broker"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_journal_is_judged_by_its_leader_its_replicas_and_its_owner() {
        let stream = StreamState { replicas: 3, leader: Some("n1".into()), is_whole: true, changes: 7, bytes: 8 };
        let level = |stream: Option<StreamState>, owner: Option<&str>| {
            let finding = told(JournalState { version: "2.15.1".into(), stream, owner: owner.map(str::to_owned) });
            finding.level
        };
        let owner = Some("127.0.0.1:1");
        assert_eq!(level(Some(stream.clone()), owner), Level::Ok);
        assert_eq!(level(None, None), Level::Ok);
        assert_eq!(level(Some(stream.clone()), None), Level::Warning);
        assert_eq!(level(Some(StreamState { is_whole: false, ..stream.clone() }), owner), Level::Warning);
        assert_eq!(level(Some(StreamState { leader: None, ..stream }), owner), Level::Problem);
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_told_with_the_setting() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("nats://{}", taken.local_addr().unwrap()).parse().unwrap();
        drop(taken);
        let finding = journal(&address, &EngineName::default()).await;
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.remedy.unwrap().contains("BROKER_ENGINE"), "{}", finding.says);
    }
}
