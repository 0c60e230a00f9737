//! Several brokers on one journal: any of them answers, and each of them may die.

use std::time::Instant;

use orderflow_proto::google::pubsub::v1 as pb;
use tonic::Code;

use crate::cluster::NatsCluster;
use crate::engine::NatsServer;
use crate::front::{Front, TAKEOVER_PATIENCE, create};
use crate::harness::{Client, PATIENCE, SUBSCRIPTION, ack_ids, first_request, message, texts};

/// What a client may be told that should try again.
const TRANSIENT: [Code; 4] = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::Internal];

#[tokio::test(flavor = "multi_thread")]
async fn any_front_acks_what_another_one_delivered_and_a_kill_of_the_owner_loses_nothing() {
    let nats = NatsServer::start();
    let first = Front::join(&nats.url);
    let owner = first.client().await;
    let second = Front::join(&nats.url);
    let client = second.client().await;
    create(&client).await;
    client.publish_texts(&["a", "b", "c"]).await;
    let received = owner.pull_all(3).await;
    assert_eq!(texts(&received), ["a", "b", "c"]);
    client.ack(vec![received[1].ack_id.clone()]).await.unwrap();
    assert_eq!(owner.stats(SUBSCRIPTION).await.backlog_messages, 2);

    first.process.kill();
    let client = second.client().await;
    let again = client.pull_all(2).await;
    assert_eq!(texts(&again), ["a", "c"]);
    // A lease of the owner before stands no more, and an ack of one that stands is confirmed.
    let stale = client.ack(vec![received[0].ack_id.clone()]).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    client.ack(ack_ids(&again)).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);

    // What was removed is not there for the next one either.
    let third = Front::join(&nats.url);
    second.process.kill();
    let client = third.client().await;
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_stops_in_order_hands_over_and_ends_well() {
    let nats = NatsServer::start();
    let first = Front::join(&nats.url);
    create(&first.client().await).await;
    let second = Front::join(&nats.url);
    second.client().await.publish_texts(&["a"]).await;
    assert_eq!(first.process.terminate(), Some(0));
    assert_eq!(texts(&second.client().await.pull_all(1).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_suspended_confirms_nothing_once_another_one_has_taken_over() {
    let nats = NatsServer::start();
    let first = Front::join(&nats.url);
    let old = first.client().await;
    create(&old).await;
    old.publish_texts(&["a"]).await;
    let second = Front::join(&nats.url);
    second.client().await;
    first.signal("-STOP");
    // It is asked while it sleeps, and reads that when it wakes.
    let late = tokio::spawn(async move { old.publish(vec![message("late")]).await });
    second.process.until_logged_within("This broker owns the journal now.", TAKEOVER_PATIENCE);
    let client = second.client().await;
    client.publish_texts(&["b"]).await;
    first.signal("-CONT");
    first.process.until_logged("given the journal up");
    // What it read before it knew is refused; what it read afterwards it has forwarded.
    let mut expected = vec!["a", "b"];
    match late.await.unwrap() {
        Ok(_) => expected.push("late"),
        Err(status) => assert!(TRANSIENT.contains(&status.code()), "{status}"),
    }
    // It is a front among others by now.
    let client = first.client().await;
    assert_eq!(texts(&client.pull_all(expected.len()).await), expected);
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, expected.len() as u64);
}

/// Claims the journal in the stream. The owner hears nothing of it: the entry that names it stands.
async fn claim(nats: &NatsServer) {
    let other = async_nats::connect(&nats.url).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", "claim.another");
    other.request_with_headers("orderflow.main.claim", headers, "another".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_takes_nothing_from_an_owner_once_somebody_else_has_claimed_it() {
    let nats = NatsServer::start();
    let first = Front::join(&nats.url);
    let client = first.client().await;
    create(&client).await;
    client.publish_texts(&["a"]).await;
    claim(&nats).await;
    let refused = client.publish(vec![message("late")]).await.unwrap_err();
    assert!(TRANSIENT.contains(&refused.code()), "{refused}");
    // It takes the journal again, as it is in the stream.
    first.process.until_logged("given the journal up");
    let client = first.client().await;
    assert_eq!(texts(&client.pull_all(1).await), ["a"]);
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_cannot_write_its_last_checkpoint_when_it_stops_says_so_and_ends() {
    let nats = NatsServer::start();
    let first = Front::join(&nats.url);
    let client = first.client().await;
    create(&client).await;
    client.publish_texts(&["a"]).await;
    claim(&nats).await;
    // What was confirmed is in the stream, and is served by the next one.
    assert_eq!(first.process.terminate(), Some(1));
    let second = Front::join(&nats.url);
    assert_eq!(texts(&second.client().await.pull_all(1).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_behind_a_front_gives_its_messages_back_at_once() {
    let nats = NatsServer::start();
    let first = Front::join(&nats.url);
    create(&first.client().await).await;
    let second = Front::join(&nats.url);
    let client = second.client().await;
    client.publish_texts(&["a"]).await;
    let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = second.process.url();
    let stream = doomed.spawn(async move {
        let request = pb::StreamingPullRequest { stream_ack_deadline_seconds: 600, ..first_request() };
        let mut stream = Client::connect(&url).await.open(request).await;
        assert_eq!(texts(&stream.take(1).await), ["a"]);
        stream
    });
    let stream = stream.await.unwrap();
    // Its socket is closed as by the end of its process: nobody says goodbye.
    doomed.shutdown_background();
    assert_eq!(texts(&client.pull_all(1).await), ["a"]);
    drop(stream);
}

/// Waits until every server has everything, so that the loss of one leaves a majority that has it.
async fn until_whole(cluster: &NatsCluster) {
    let begun = Instant::now();
    let client = async_nats::connect(cluster.urls().replace(',', ",nats://").split(',').collect::<Vec<_>>()).await;
    let context = async_nats::jetstream::new(client.unwrap());
    for name in ["orderflow-main", "KV_orderflow-main-owner"] {
        loop {
            assert!(begun.elapsed() < TAKEOVER_PATIENCE, "the servers do not agree on {name}");
            let Ok(stream) = context.get_stream(name).await else { continue };
            let Some(found) = &stream.cached_info().cluster else { continue };
            if found.leader.is_some() && found.replicas.len() == 2 && found.replicas.iter().all(|peer| peer.current) {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_publish_that_was_confirmed_is_delivered_although_each_server_of_the_cluster_is_killed_once() {
    let mut cluster = NatsCluster::start(3);
    let front = Front::join(&cluster.urls());
    let client = front.client().await;
    create(&client).await;
    let mut confirmed = Vec::new();
    for server in 0..cluster.len() {
        until_whole(&cluster).await;
        cluster.kill(server);
        let begun = Instant::now();
        for number in 0..20 {
            let text = format!("{server}-{number}");
            while let Err(status) = client.publish(vec![message(&text)]).await {
                assert!(begun.elapsed() < TAKEOVER_PATIENCE, "{status}");
            }
            confirmed.push(text);
        }
        cluster.restart(server);
    }
    let mut received = Vec::new();
    let begun = Instant::now();
    while confirmed.iter().any(|text| !received.contains(text)) {
        assert!(begun.elapsed() < PATIENCE, "only {received:?} came");
        received.extend(texts(&client.pull(1_000).await));
    }
    // An election is no reason to.
    assert!(!front.process.log.try_iter().any(|line| line.contains("given the journal up")));
    front.process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_lost_the_servers_gives_the_journal_up_and_serves_again_when_they_are_back() {
    let mut nats = NatsCluster::start(1);
    let front = Front::join(&nats.urls());
    let client = front.client().await;
    create(&client).await;
    let mut confirmed = vec!["before".to_owned()];
    client.publish_texts(&["before"]).await;
    let leased = client.pull_all(1).await;
    nats.kill(0);
    // More than it waits for an election.
    front.process.until_logged_within("given the journal up", TAKEOVER_PATIENCE);
    assert_eq!(front.health(), Some(1), "nobody serves");
    let refused = client.publish(vec![message("meanwhile")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    nats.restart(0);
    let client = front.client().await;
    assert_eq!(front.health(), Some(0));
    client.publish_texts(&["after"]).await;
    confirmed.push("after".to_owned());
    let received = client.pull_all(2).await;
    assert_eq!(texts(&received), confirmed);
    // A lease of before is one of an owner before, although that was the same process.
    let stale = client.ack(ack_ids(&leased)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    client.ack(ack_ids(&received)).await.unwrap();
    assert_eq!(front.process.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_that_forwards_a_stream_stops_in_order_and_the_messages_go_back_at_once() {
    let nats = NatsServer::start();
    let first = Front::join(&nats.url);
    create(&first.client().await).await;
    let second = Front::join(&nats.url);
    let client = second.client().await;
    client.publish_texts(&["a"]).await;
    let mut stream =
        client.open(pb::StreamingPullRequest { stream_ack_deadline_seconds: 600, ..first_request() }).await;
    assert_eq!(texts(&stream.take(1).await), ["a"]);
    assert_eq!(second.process.terminate(), Some(0));
    let ended = stream.end().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    assert_eq!(texts(&first.client().await.pull_all(1).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cancelled_behind_a_front_keeps_its_messages_while_its_client_lives() {
    let nats = NatsServer::start();
    let first = Front::join(&nats.url);
    create(&first.client().await).await;
    let second = Front::join(&nats.url);
    let client = second.client().await;
    client.publish_texts(&["a"]).await;
    let mut stream =
        client.open(pb::StreamingPullRequest { stream_ack_deadline_seconds: 600, ..first_request() }).await;
    let received = stream.take(1).await;
    assert_eq!(texts(&received), ["a"]);
    drop(stream);
    client.until(SUBSCRIPTION, |stats| stats.consumers == 0).await;
    assert_eq!(client.stats(SUBSCRIPTION).await.outstanding_messages, 1);
    client.ack(ack_ids(&received)).await.unwrap();
    assert_eq!(client.stats(SUBSCRIPTION).await.backlog_messages, 0);
}
