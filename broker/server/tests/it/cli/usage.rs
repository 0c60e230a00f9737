use std::process::Stdio;

use tokio::net::TcpSocket;

use super::{Cli, shop};
use crate::harness::PATIENCE;

/// An address where nobody listens, as long as the socket is kept: it is bound and does not listen.
fn nowhere() -> (Cli, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (Cli::at(&format!("http://{}", socket.local_addr().unwrap())), socket)
}

#[test]
fn a_broker_that_does_not_run_is_named_with_how_to_start_one() {
    let (cli, _nobody) = nowhere();
    for arguments in [["topic", "list"].as_slice(), &["publish", "orders", "tea"], &["tail", "payment"], &["stats"]] {
        let errors = cli.fails(arguments);
        assert!(errors.contains("no broker answers at http://127.0.0.1:"), "{errors}");
        assert!(errors.contains("broker serve") && errors.contains("--address"), "{errors}");
    }
    let errors = cli.fails(&["topic", "list", "--address", "no address"]);
    assert!(errors.contains("--address, BROKER_ADDRESS"), "{errors}");
}

#[test]
fn wrong_usage_exits_with_2_before_anybody_is_asked() {
    let (cli, _nobody) = nowhere();
    let cases: [(&[&str], &str); 20] = [
        (&[], "Usage"),
        (&["topc"], "topic"),
        (&["topic", "create"], "<TOPIC>"),
        (&["topic", "create", "orders", "--retention", "soon"], "--retention"),
        (&["topic", "create", "orders", "--labels", "alone"], "key=value"),
        (&["topic", "list", "--output", "xml"], "--output"),
        (&["topic", "list", "--project", "a/b"], "--project"),
        (&["topic", "update", "orders"], "--clear-labels"),
        (&["subscription", "create", "payment"], "--topic"),
        (&["subscription", "update", "payment"], "--ack-deadline"),
        (&["subscription", "update", "payment", "--ack-deadline", "1500ms"], "whole seconds"),
        (&["subscription", "update", "payment", "--clear-labels", "--labels", "a=b"], "cannot be used with"),
        (&["publish", "orders"], "--file"),
        (&["publish", "orders", "tea", "--file", "x"], "cannot be used with"),
        (&["pull", "payment", "--limit", "0"], "--limit"),
        (&["tail"], "--topic"),
        (&["seek", "payment"], "--to-start"),
        (&["seek", "payment", "--to-start", "--to-end"], "cannot be used with"),
        (&["seek", "payment", "--time", "yesterday"], "2026-01-31T12:00:00Z"),
        (&["ack", "payment"], "<ACK_ID>"),
    ];
    for (arguments, expected) in cases {
        let answer = cli.run(arguments);
        assert_eq!(answer.code, Some(2), "{arguments:?}: {answer:?}");
        assert!(answer.errors.contains(expected), "{arguments:?}: {expected}: {answer:?}");
        assert_eq!(answer.out, "", "{arguments:?}");
    }
}

#[test]
fn every_command_has_a_help() {
    let (cli, _nobody) = nowhere();
    let help = cli.ok(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 15, "{help}");
    for name in names {
        let help = cli.ok(&[name, "--help"]);
        assert!(help.contains("Usage: broker "), "{help}");
    }
}

#[test]
fn completions_know_the_commands() {
    let (cli, _nobody) = nowhere();
    for shell in ["bash", "zsh", "fish"] {
        let script = cli.ok(&["completions", shell]);
        assert!(script.contains("broker") && script.contains("auto-ack") && script.contains("redrive"), "{shell}");
    }
    assert_eq!(cli.run(&["completions", "tcsh"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_early_is_no_error() {
    let (_broker, cli) = shop().await;
    cli.ok(&["publish", "orders", "tea"]);
    for arguments in [["topic", "list"].as_slice(), &["pull", "payment", "--wait"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = cli.command(arguments).stdout(Stdio::from(writer)).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_needs_no_scheme_and_a_flag_goes_before_the_environment() {
    let (broker, cli) = shop().await;
    let address = broker.url.trim_start_matches("http://");
    let (elsewhere, _nobody) = nowhere();
    elsewhere.ok(&["topic", "describe", "orders", "--address", address]);
    elsewhere.ok(&["health", "--address", address]);
    assert_eq!(cli.json(&["topic", "list", "--project", "projects/q"]), serde_json::json!([]));
}

#[test]
fn a_broker_without_a_topology_says_how_to_go_on() {
    let dir = tempfile::TempDir::new().unwrap();
    let data = dir.path().to_str().unwrap();
    let (cli, _nobody) = nowhere();
    let broker = cli.start(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]);
    broker.says("create topics with `broker topic create`");
    broker.says("PUBSUB_EMULATOR_HOST=127.0.0.1:");
    broker.says("The broker serves.");
    broker.signal("-TERM");
    let begun = std::time::Instant::now();
    assert_eq!(broker.end().code, Some(0));
    assert!(begun.elapsed() < PATIENCE);
}
