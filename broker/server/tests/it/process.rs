//! The `broker` binary, in processes that are killed.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::engine;
use crate::harness::{Client, PATIENCE, SUBSCRIPTION, TOPIC, texts};
use crate::started::{BrokerProcess, SERVES, broker, serve};

fn output(arguments: &[&str]) -> (Output, String) {
    let output = broker(arguments).output().unwrap();
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    (output, errors)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_process_with_success_and_a_restart_finds_everything() {
    let dir = TempDir::new().unwrap();
    let broker = BrokerProcess::start(dir.path(), "127.0.0.1:0");
    let client = Client::connect(&broker.url()).await;
    client.create_topic(TOPIC).await;
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    client.publish_texts(&["a"]).await;
    assert_eq!(broker.terminate(), Some(0));
    let broker = BrokerProcess::start(dir.path(), "127.0.0.1:0");
    let client = Client::connect(&broker.url()).await;
    assert_eq!(texts(&client.pull(10).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let dir = TempDir::new().unwrap();
    let first = BrokerProcess::start(dir.path(), "127.0.0.1:0");
    let second = serve(dir.path(), "127.0.0.1:0", &[]).output().unwrap();
    let errors = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    let expected = if engine::is_replicated() {
        "can't hold the copy of the journal"
    } else {
        "BROKER_DATA_DIR) is in use by another broker"
    };
    assert!(errors.contains(expected), "{errors}");
    Client::connect(&first.url()).await.create_topic(TOPIC).await;
}

#[test]
fn a_bad_configuration_exits_with_a_message_that_names_the_variable() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not json").unwrap();
    let (file, data) = (file.to_str().unwrap(), dir.path().join("data"));
    let data = data.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &str); 5] = [
        (&["serve", "--data-dir", data, "--listen", "nowhere"], "--listen"),
        (&["serve", "--data-dir", data, "--listen", &taken], "BROKER_LISTEN"),
        (&["serve", "--listen", "127.0.0.1:0", "--data-dir", file], "BROKER_DATA_DIR"),
        (&["serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--topology", file], "BROKER_TOPOLOGY"),
        (&["serve", "--listen", "127.0.0.1:0", "--data-dir", data, "--topology", "/none"], "BROKER_TOPOLOGY"),
    ];
    for (arguments, named) in cases {
        let (output, errors) = output(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(errors.contains(named), "{arguments:?}: {errors}");
    }
}

#[test]
fn the_health_command_tells_a_healthy_broker_from_none() {
    let dir = TempDir::new().unwrap();
    let broker = BrokerProcess::start(dir.path(), "127.0.0.1:0");
    let url = broker.url();
    let (healthy, errors) = output(&["health", "--address", &url]);
    assert!(healthy.status.success(), "{errors}");
    // Bound and not listening, so that nobody else gets the port.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    let (gone, errors) = output(&["health", "--address", &url]);
    assert!(!gone.status.success());
    assert!(errors.contains(&url), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_refuses_to_start_and_says_where() {
    let dir = TempDir::new().unwrap();
    let small = ["--segment-bytes", "4096", "--checkpoint-bytes", "1000000000"];
    let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let client = Client::connect(&broker.url()).await;
    client.create_topic(TOPIC).await;
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    for _ in 0..20 {
        client.publish_texts(&[&"x".repeat(1_000)]).await;
    }
    broker.kill();
    let name = damage_second_segment(&engine::journal_dir(dir.path()));
    if engine::is_replicated() {
        return everything_is_there(dir.path()).await;
    }
    let (refused, errors) = output(&["serve", "--listen", "127.0.0.1:0", "--data-dir", dir.path().to_str().unwrap()]);
    assert!(!refused.status.success());
    assert!(errors.contains(&name) && errors.contains("offset"), "{errors}");
}

/// What a cluster keeps does not suffer from a copy that is damaged.
async fn everything_is_there(dir: &Path) {
    let broker = BrokerProcess::start(dir, "127.0.0.1:0");
    let client = Client::connect(&broker.url()).await;
    assert_eq!(client.pull_all(20).await.len(), 20);
    assert_eq!(broker.terminate(), Some(0));
}

/// Flips a bit in a message, and answers the file's name.
fn damage_second_segment(dir: &Path) -> String {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    segments.sort();
    assert!(segments.len() > 3, "{segments:?}");
    let mut bytes = std::fs::read(&segments[1]).unwrap();
    bytes[2_000] ^= 1;
    std::fs::write(&segments[1], bytes).unwrap();
    segments[1].file_name().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_before_the_checkpoint_ends_a_broker_that_serves_and_then_refuses_its_start() {
    let dir = TempDir::new().unwrap();
    let journal_dir = engine::journal_dir(dir.path());
    let data_dir = journal_dir.to_str().unwrap();
    let small = ["--segment-bytes", "4096"];
    let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let client = Client::connect(&broker.url()).await;
    client.create_topic(TOPIC).await;
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    for _ in 0..20 {
        client.publish_texts(&[&"x".repeat(1_000)]).await;
    }
    // It writes a checkpoint, so that nothing before is read at the next start.
    assert_eq!(broker.terminate(), Some(0));
    let (sound, errors) = output(&["check", "--data-dir", data_dir]);
    assert!(sound.status.success(), "{errors}");
    let name = damage_second_segment(&journal_dir);
    let (unsound, errors) = output(&["check", "--data-dir", data_dir]);
    assert!(!unsound.status.success() && errors.contains(&name), "{errors}");

    if engine::is_replicated() {
        return everything_is_there(dir.path()).await;
    }
    let mut broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    assert_eq!(broker.child.wait().unwrap().code(), Some(1));
    let log = broker.log.iter().collect::<Vec<_>>().join("\n");
    assert!(log.contains(&format!("broker: the journal failed: `{name}` is corrupt at offset")), "{log}");
    let (refused, errors) = output(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir]);
    assert!(!refused.status.success() && errors.contains(&name), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn space_is_given_back_also_when_one_message_is_never_acked() {
    let dir = TempDir::new().unwrap();
    let small = ["--segment-bytes", "65536", "--checkpoint-bytes", "65536"];
    let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let client = Client::connect(&broker.url()).await;
    client.create_topic(TOPIC).await;
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    client.publish_texts(&["stuck"]).await;
    let stuck = client.pull(1).await;
    client.modify(crate::harness::ack_ids(&stuck), 600).await.unwrap();
    let text = "x".repeat(1_000);
    for _ in 0..100 {
        client.publish_texts(&[text.as_str(); 20]).await;
        let received = client.pull_all(20).await;
        client.ack(crate::harness::ack_ids(&received)).await.unwrap();
    }
    // 2 MB went through; what stays is a few segments, and the one in which the message was published is not among them.
    let journal_bytes = || async {
        let request = orderflow_proto::orderflow::broker::v1::GetStatsRequest::default();
        client.inspector.clone().get_stats(request).await.unwrap().into_inner().journal_bytes
    };
    let first_segment = dir.path().join("segment-00000000000000000001.log");
    let begun = Instant::now();
    while journal_bytes().await > 500_000 || first_segment.exists() {
        assert!(begun.elapsed() < PATIENCE, "{} bytes stay", journal_bytes().await);
        // Checkpoints come with traffic.
        client.publish_texts(&[text.as_str(); 20]).await;
        let received = client.pull_all(20).await;
        client.ack(crate::harness::ack_ids(&received)).await.unwrap();
    }
    broker.kill();
    let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &small);
    let client = Client::connect(&broker.url()).await;
    let received = client.pull_all(1).await;
    assert_eq!(texts(&received), ["stuck"]);
    assert_eq!(received[0].message.as_ref().unwrap().message_id, stuck[0].message.as_ref().unwrap().message_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_ends_the_process_with_the_reason_and_loses_nothing_that_was_confirmed() {
    let dir = TempDir::new().unwrap();
    // The shell forbids files beyond 64 blocks of 512 bytes, and lets a write there fail instead of kill.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" serve --listen 127.0.0.1:0 --data-dir \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_broker"), dir.path().to_str().unwrap()]);
    command.args(engine::flags(dir.path()));
    // The zeros ahead of the first write would not fit.
    command.env("BROKER_AHEAD_BYTES", "0");
    let mut broker = BrokerProcess::spawn(command, SERVES);
    let client = Client::connect(&broker.url()).await;
    client.create_topic(TOPIC).await;
    client.create_subscription(SUBSCRIPTION, TOPIC).await;
    let text = |number: usize| format!("{number}-{}", "x".repeat(1_000));
    let mut confirmed = Vec::new();
    let refusal = loop {
        let sent = text(confirmed.len());
        match client.publish(vec![crate::harness::message(&sent)]).await {
            Ok(_) => confirmed.push(sent),
            Err(status) => break status,
        }
        assert!(confirmed.len() < 1_000, "no write fails");
    };
    assert!(confirmed.len() > 10, "{refusal}");
    let status = broker.child.wait().unwrap();
    assert_eq!(status.code(), Some(1));
    let log = broker.log.iter().collect::<Vec<_>>().join("\n");
    assert!(log.contains("broker: the journal failed"), "{log}");

    let broker = BrokerProcess::start(dir.path(), "127.0.0.1:0");
    let client = Client::connect(&broker.url()).await;
    let received = texts(&client.pull_all(confirmed.len()).await);
    assert_eq!(received[..confirmed.len()], confirmed);
}
