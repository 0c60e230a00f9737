//! `orderflow compare` and `orderflow chaos` when they are ended, or could not tell what they find: nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::tempdir;
use tokio::time;

use crate::harness::{DEADLINE, eventually, output, program, signal_process};

/// Each with a run that would last longer than any test.
const COMMANDS: [&[&str]; 2] = [&["compare", "--before", "600s"], &["chaos", "--duration", "600s", "--rate", "5"]];

/// The folders of stacks in the folder for temporary files.
fn labs(temporary: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("orderflow-lab-")).collect()
}

async fn leaves_nothing_behind_when_it_is_ended(command: &[&str], signal: Signal) {
    let temporary = tempdir().unwrap();
    let run = program().args(command).env("TMPDIR", temporary.path()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = run.id().unwrap();
    // The last part to be started has written its log: all of them run, or are about to.
    eventually("its stack starts", || {
        labs(temporary.path()).iter().any(|lab| lab.join("logs").join("invoice-worker.log").exists())
    })
    .await;
    signal_process(pid, signal);
    let ended = time::timeout(DEADLINE, run.wait_with_output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains("was broken off"), "{command:?}: {said}");
    assert_eq!(labs(temporary.path()), Vec::<PathBuf>::new(), "{command:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_ended_takes_its_stack_with_it() {
    let [compare, chaos] = COMMANDS;
    tokio::join!(
        leaves_nothing_behind_when_it_is_ended(compare, Signal::INT),
        leaves_nothing_behind_when_it_is_ended(chaos, Signal::TERM),
    );
}

#[tokio::test]
async fn a_report_that_cannot_be_written_is_refused_before_anything_runs() {
    for command in COMMANDS {
        let temporary = tempdir().unwrap();
        let report = temporary.path().join("missing").join("report.html");
        let ended = output(program().args(command).arg("--report").arg(&report).env("TMPDIR", temporary.path())).await;
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains("missing/report.html"), "{command:?}: {said}");
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "{command:?}");
    }
}
