//! Servers that ask for more than an address, and servers that are none.

use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::engine::NatsServer;
use crate::front::{Front, create};
use crate::harness::{PATIENCE, message, texts};
use crate::started::broker;

/// Why a broker does not start on these servers.
pub(crate) fn refused(url: &str) -> String {
    let dir = TempDir::new().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--engine", url, "--data-dir"];
    let output = broker(&arguments).arg(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_password_gets_it_and_nobody_else_sees_it() {
    let nats = NatsServer::start_with("authorization { user: orders, password: \"secret-of-ours\" }");
    let host = nats.url.strip_prefix("nats://").unwrap();
    let front = Front::join(&format!("nats://orders:secret-of-ours@{host}"));
    let client = front.client().await;
    create(&client).await;
    client.publish_texts(&["a"]).await;
    assert_eq!(texts(&client.pull_all(1).await), ["a"]);
    for url in [format!("nats://orders:wrong-secret@{host}"), nats.url.clone()] {
        let why = refused(&url);
        assert!(why.to_lowercase().contains("authorization"), "{why}");
        assert!(!why.contains("secret"), "{why}");
    }
}

/// A certificate for 127.0.0.1 that speaks for itself.
fn certificate(dir: &TempDir) -> (String, String) {
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=nats", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_talked_to_by_tls_when_its_certificate_is_trusted_and_not_at_all_otherwise() {
    let dir = TempDir::new().unwrap();
    let (certificate, key) = certificate(&dir);
    let nats = NatsServer::start_with(&format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}"));
    let url = nats.url.replace("nats://", "tls://");
    let front = Front::join_with(&url, |command| {
        command.env("SSL_CERT_FILE", &certificate);
    });
    let client = front.client().await;
    create(&client).await;
    client.publish_texts(&["a"]).await;
    assert_eq!(texts(&client.pull_all(1).await), ["a"]);
    let why = refused(&url);
    assert!(why.to_lowercase().contains("certificate"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_messages_as_large_as_changes_is_refused() {
    let nats = NatsServer::start_with("max_payload: 65536");
    let why = refused(&nats.url);
    assert!(why.contains("takes messages of 65536 bytes"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_ends_with_the_reason_when_the_servers_have_no_more_room() {
    let limits = "accounts { ours { jetstream { max_file: 2000000 }, users [ { user: orders, password: ours } ] } }";
    let nats = NatsServer::start_with(limits);
    let front = Front::join(&nats.url.replace("nats://", "nats://orders:ours@"));
    let client = front.client().await;
    create(&client).await;
    let begun = Instant::now();
    // Less than that cannot be confirmed.
    while client.publish(vec![message(&"x".repeat(100_000))]).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "there is always room");
    }
    front.process.until_logged("the cluster takes no more changes");
    assert_eq!(front.process.terminate(), Some(1));
}

#[test]
fn a_broker_that_only_its_machine_reaches_does_not_join_servers_elsewhere() {
    // Nobody is at this address: it is for examples.
    let why = refused("nats://192.0.2.1:4222");
    assert!(why.contains("--advertise"), "{why}");
}
