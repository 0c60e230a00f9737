//! Starting, killing, showing and stopping a stack past one machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use orderflow::Part;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{self, Instant};

use crate::harness::{DEADLINE, Stack, eventually, free_ports, output, runs, up};

/// A pause between two questions, each of which is a process.
const POLL: Duration = Duration::from_millis(200);

async fn start() -> Stack {
    let (folder, ports, flags) = place();
    Stack::start_in(Arc::new(folder), ports, flags).await
}

/// A folder, ports and flags for a stack.
fn place() -> (TempDir, BTreeMap<Part, u16>, Vec<String>) {
    let folder = TempDir::new().unwrap();
    // PostgreSQL runs as somebody else if the tests are run by root.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let ports = Part::ALL.into_iter().zip(free_ports()).collect();
    let [nats, .., postgres] = free_ports().map(|port| format!("127.0.0.1:{port}"));
    let flags = ["--scale", "--nats-listen", &nats, "--postgres-listen", &postgres].map(str::to_owned);
    (folder, ports, flags.into())
}

/// Waits until a command succeeds and says what is wanted: a server that was started again may still be catching up.
async fn eventually_says(stack: &Stack, arguments: &[&str], wanted: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let output = stack.command(arguments).await;
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && wanted(&said) {
            return;
        }
        assert!(Instant::now() < deadline, "{arguments:?}: {output:?}");
        time::sleep(POLL).await;
    }
}

/// The process of every instance that runs, by its name.
async fn processes(stack: &Stack) -> BTreeMap<String, u32> {
    let status = stack.succeed(&["status"]).await;
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some((words.first()?.to_string(), words.get(2)?.parse().ok()?))
    };
    status.lines().filter_map(line).collect()
}

const ALL: [&str; 15] = [
    "acquirer",
    "broker",
    "broker-2",
    "invoice-worker",
    "invoice-worker-2",
    "nats",
    "nats-2",
    "nats-3",
    "notification-service",
    "notification-service-2",
    "order-service",
    "order-service-2",
    "payment-service",
    "payment-service-2",
    "postgres",
];

#[tokio::test]
async fn one_of_everything_may_die_and_the_next_start_finds_it_all() {
    let mut stack = start().await;
    let before = processes(&stack).await;
    assert_eq!(before.keys().map(String::as_str).collect::<Vec<_>>(), ALL);
    stack.succeed(&["place", "--orders", "5"]).await;

    let victims = ["nats", "broker", "order-service", "payment-service-2", "notification-service", "invoice-worker"];
    for victim in victims {
        stack.succeed(&["kill", victim]).await;
        assert!(!runs(before[victim]), "{victim}");
    }
    // Each of the commands finds who is left by the one address of all.
    stack.succeed(&["place", "--orders", "5", "--patience", "50s"]).await;
    let books = stack.succeed(&["audit", "--wait", "60s"]).await;
    assert!(books.contains("orders accepted            10"), "{books}");
    for victim in victims {
        stack.succeed(&["start", victim]).await;
    }
    stack.succeed(&["stop", "postgres"]).await;
    fails_to_start_and_says_so_once(&stack).await;
    stack.succeed(&["start", "postgres"]).await;
    stack.succeed(&["place", "--orders", "5", "--patience", "50s"]).await;
    stack.succeed(&["audit", "--wait", "60s"]).await;
    let is_well = |said: &str| said.contains("3 server(s)") && said.contains("owns it");
    eventually_says(&stack, &["doctor"], is_well).await;

    let children = processes(&stack).await;
    assert_eq!(children.keys().map(String::as_str).collect::<Vec<_>>(), ALL);
    stack.signal(Signal::INT);
    assert!(stack.ended().await.success(), "{:#?}", stack.output());
    for (name, pid) in children {
        assert!(!runs(pid), "{name} still runs");
    }
    let killed: Vec<_> = stack.output().into_iter().filter(|line| line.contains("did not stop")).collect();
    assert!(killed.is_empty(), "{killed:?}");

    let mut stack = stack.again().await;
    let books = stack.succeed(&["audit", "--wait", "60s"]).await;
    assert!(books.contains("orders accepted            15"), "{books}");

    let children = processes(&stack).await;
    stack.signal(Signal::KILL);
    assert!(!stack.ended().await.success());
    for (name, pid) in children {
        eventually(&format!("{name} ends with its runner"), || !runs(pid)).await;
    }
}

/// Lets PostgreSQL, which does not run, find a setting that it does not take.
async fn fails_to_start_and_says_so_once(stack: &Stack) {
    let ends = || stack.output().into_iter().filter(|line| line.starts_with("postgres (process")).count();
    eventually("its end is told", || ends() > 0).await;
    let ends_before = ends();
    let settings = stack.folder().join("postgres/data/postgresql.auto.conf");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{text}no_such_setting = 1\n")).unwrap();
    let started = stack.command(&["start", "postgres"]).await;
    assert!(!started.status.success(), "{started:?}");
    // It was tried again and again.
    eventually("the last end is told", || ends() > ends_before).await;
    assert_eq!(ends(), ends_before + 1, "{:#?}", stack.output());
    fs::write(&settings, text).unwrap();
}

#[tokio::test]
async fn a_server_that_nobody_can_watch_is_ended_at_once() {
    let (folder, ports, flags) = place();
    let path = std::env::var_os("PATH").unwrap();
    let nats = std::env::split_paths(&path).map(|folder| folder.join("nats-server")).find(|file| file.exists());
    // The shell that would watch it is not found.
    let mut command = up(folder.path(), &ports);
    command.args(flags).arg("--nats-server").arg(nats.unwrap()).env("PATH", folder.path());
    let started = output(&mut command).await;
    assert!(!started.status.success(), "{started:?}");
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(said.contains("nats"), "{said}");
    let home = folder.path().to_str().unwrap();
    eventually("no server is left", || processes_of(home).is_empty()).await;
}

/// The command lines in which a folder is named.
fn processes_of(folder: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc").unwrap().filter_map(|process| {
        let line = fs::read(process.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(folder)).collect()
}
