//! The program as its users start it.

#![allow(clippy::unwrap_used, reason = "the helpers of the tests are tests as well")]

use std::process::{Command, Output};

use tempfile::TempDir;

fn bench(args: &[&str], dir: &TempDir) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orderflow-bench"));
    command.args(args).arg("--out").arg(dir.path()).env("BENCH_DIR", dir.path());
    // Nothing that is installed is looked for.
    command.env("PATH", "").env_remove("NATS_SERVER");
    command.output().unwrap()
}

#[test]
fn a_quick_run_of_the_servers_that_it_brings_along_gives_a_table_figures_and_a_chart() {
    let dir = TempDir::new().unwrap();
    let output =
        bench(&["--quick", "--only", "publish-10/noop", "--only", "publish-10/broker", "--only", "/raw"], &dir);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.contains("deliver: ") && stdout.contains("a file delivers nothing"), "{stdout}");
    let text = std::fs::read_to_string(dir.path().join("bench.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let results = all["results"].as_array().unwrap();
    for side in ["noop", "broker", "raw"] {
        let of_side = |result: &&serde_json::Value| result["case"] == "publish-10" && result["side"] == side;
        let result = results.iter().find(of_side).unwrap_or_else(|| panic!("{side} is missing in {text}"));
        assert!(result["messages_per_s"]["median"].as_f64().unwrap() > 0.0, "{result}");
    }
    assert!(std::fs::read_to_string(dir.path().join("bench.svg")).unwrap().contains("publish-10"));
}

#[test]
fn a_side_that_is_not_installed_is_missing_by_name() {
    let dir = TempDir::new().unwrap();
    let output = bench(&["--quick", "--only", "publish-10/nats"], &dir);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("missing: nats: `nats-server` is not installed"), "{stdout}");
}
