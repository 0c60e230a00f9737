//! `orderflow doctor`: each thing that can be wrong is named, with its remedy, and nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use orderflow::Part;
use rustix::process::Signal;
use serde_json::Value;
use service_kit::db::{Database, Migration};
use tempfile::tempdir;

use crate::harness::{Stack, free_ports, output, program};

/// What the doctor says about a folder, with ports that nobody has and more in its environment.
async fn doctor(folder: &Path, env: &[(&str, &str)]) -> (bool, Value) {
    let mut command = program();
    command.args(["doctor", "--output", "json", "--data-dir"]).arg(folder);
    command.env("ORDERFLOW_DASHBOARD_LISTEN", "off");
    for (part, port) in Part::ALL.into_iter().zip(free_ports()) {
        command.env(part.listen_variable(), format!("127.0.0.1:{port}"));
    }
    let output = output(command.envs(env.iter().copied())).await;
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.success(), told)
}

/// The finding of a level about something.
fn finding<'a>(told: &'a Value, level: &str, about: &str) -> &'a Value {
    let mut findings = told["findings"].as_array().unwrap().iter();
    let found =
        findings.find(|finding| finding["level"] == level && finding["about"].as_str().unwrap().contains(about));
    found.unwrap_or_else(|| panic!("no {level} about {about} in {told:#}"))
}

/// Every file below a folder with what it holds and when it was written.
fn content(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        if metadata.is_dir() {
            files.extend(content(&path));
        } else if metadata.is_file() {
            files.insert(path.clone(), (fs::read(&path).unwrap(), metadata.modified().unwrap()));
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_judged_and_left_as_it_is_whether_its_stack_runs_was_killed_or_has_stopped() {
    let mut stack = Stack::start().await;
    stack.succeed(&["place", "--orders", "5"]).await;
    let (healthy, told) = doctor(stack.folder(), &[]).await;
    assert!(healthy, "{told:#}");
    assert_eq!(finding(&told, "ok", "parts")["says"], "all are well");
    stack.kill(Part::PaymentService).await;
    let (healthy, told) = doctor(stack.folder(), &[]).await;
    assert!(!healthy, "{told:#}");
    let remedy = finding(&told, "problem", "payment-service")["remedy"].as_str().unwrap();
    assert!(remedy.contains("orderflow start payment-service"), "{remedy}");

    // Killed, with all that was written last still beside the databases.
    stack.signal(Signal::KILL);
    stack.ended().await;
    for pid in stack_processes(stack.folder()) {
        crate::harness::eventually("children end with their runner", || !crate::harness::runs(pid)).await;
    }
    let before = content(stack.folder());
    let (healthy, told) = doctor(stack.folder(), &[]).await;
    assert!(healthy, "{told:#}");
    for about in ["journal", "order.db", "payment.db", "notification.db", "acquirer.db"] {
        assert!(finding(&told, "ok", about)["says"].as_str().unwrap().contains("sound"), "{told:#}");
    }
    assert!(content(stack.folder()) == before, "the doctor changes nothing");
}

/// Processes that were started on a folder.
fn stack_processes(folder: &Path) -> Vec<u32> {
    let folder = folder.to_string_lossy().into_owned();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of_the_stack = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&folder)
    };
    pids.filter(of_the_stack).collect()
}

#[tokio::test]
async fn a_taken_port_is_told_with_who_has_it_and_how_to_get_around_it() {
    let folder = tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (healthy, told) = doctor(&folder.path().join("new"), &[("BROKER_LISTEN", &address)]).await;
    assert!(!healthy);
    let taken = finding(&told, "problem", &format!("port {}", listener.local_addr().unwrap().port()));
    assert!(taken["says"].as_str().unwrap().contains(&format!("process {}", std::process::id())), "{taken:#}");
    assert!(taken["remedy"].as_str().unwrap().contains("BROKER_LISTEN"), "{taken:#}");
    assert!(!folder.path().join("new").exists(), "the folder is not made");
}

#[tokio::test]
async fn a_folder_that_is_a_file_and_settings_that_cannot_be_read_are_problems() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("data");
    fs::write(&file, "").unwrap();
    let env = [("ORDER_PAYMENT_TIMEOUT_MS", "soon"), ("BROKER_LISTN", "127.0.0.1:1"), ("ORDER_PAYMENT_DEADLINE", "")];
    let (healthy, told) = doctor(&file, &env).await;
    assert!(!healthy);
    assert_eq!(finding(&told, "problem", "folder")["says"], "it is no folder");
    let says = finding(&told, "problem", "settings")["says"].as_str().unwrap();
    assert!(says.contains("order-service") && says.contains("soon"), "{says}");
    assert!(finding(&told, "warning", "settings")["says"].as_str().unwrap().contains("BROKER_LISTN"), "{told:#}");
    let text = output(program().args(["doctor", "--data-dir"]).arg(&file)).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("problem  folder") && line.contains("--data-dir")), "{text}");
}

#[tokio::test]
async fn data_of_a_newer_version_and_damaged_data_are_problems() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let future = Migration { version: 9_999, name: "future", sql: "CREATE TABLE future (id TEXT)" };
    drop(Database::open(&format!("sqlite://{}", path("order.db").display()), &[future]).await.unwrap());
    fs::write(path("payment.db"), "no database at all, but some text that is long enough").unwrap();
    fs::create_dir(path("broker")).unwrap();
    fs::write(path("broker").join("segment-00000000000000000001.log"), [7; 64]).unwrap();
    let (healthy, told) = doctor(folder.path(), &[]).await;
    assert!(!healthy);
    let newer = finding(&told, "problem", "order.db");
    assert!(newer["says"].as_str().unwrap().contains("9999"), "{newer:#}");
    assert!(newer["remedy"].as_str().unwrap().contains("use that version"), "{newer:#}");
    assert!(finding(&told, "problem", "journal")["says"].as_str().unwrap().contains("corrupt"), "{told:#}");
    assert!(finding(&told, "problem", "payment.db")["remedy"].as_str().unwrap().contains("backup"), "{told:#}");
}
