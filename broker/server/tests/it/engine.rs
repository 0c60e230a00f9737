//! The engine that the tests run on: the embedded one, or one on a NATS server of this process.
//!
//! Every test is the same for both; `BROKER_TEST_ENGINE=nats` chooses the second.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use broker::Config;
use tempfile::TempDir;

use crate::harness::PATIENCE;

/// The variable that chooses the engine.
const CHOICE: &str = "BROKER_TEST_ENGINE";

/// Whether the tests run on a journal in NATS.
pub(crate) fn is_replicated() -> bool {
    match std::env::var(CHOICE).as_deref() {
        Ok("nats") => true,
        Err(_) | Ok("embedded" | "") => false,
        Ok(other) => panic!("{CHOICE} is `embedded` or `nats`, not `{other}`"),
    }
}

/// The flags of a broker on a directory. Brokers on the same directory share a journal, one after the other.
pub(crate) fn flags(dir: &Path) -> Vec<String> {
    if !is_replicated() {
        return Vec::new();
    }
    vec!["--engine".to_owned(), nats_url(), "--engine-name".to_owned(), name(dir)]
}

/// The same for a broker in this process.
pub(crate) fn configure(config: &mut Config) {
    if is_replicated() {
        config.engine = Some(nats_url().parse().unwrap());
        config.engine_name = name(&config.data_dir).parse().unwrap();
    }
}

/// Where the files of the journal are. With a replicated engine they are a copy.
pub(crate) fn journal_dir(dir: &Path) -> PathBuf {
    if is_replicated() { dir.join(format!("copy-{}", name(dir))) } else { dir.to_owned() }
}

fn name(dir: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    format!("test-{:016x}", hasher.finish())
}

/// A NATS server that ends with this value.
pub(crate) struct NatsServer {
    child: Child,
    _dir: TempDir,
    pub(crate) url: String,
}

impl NatsServer {
    /// Starts a server on a free port, with JetStream in a directory of its own.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same with more lines in its configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let child = spawn(dir.path(), more);
        let url = url_in(dir.path());
        Self { child, _dir: dir, url }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The server of this process.
fn nats_url() -> String {
    static SERVER: OnceLock<NatsServer> = OnceLock::new();
    SERVER.get_or_init(NatsServer::start).url.clone()
}

fn spawn(dir: &Path, more: &str) -> Child {
    let config = format!(
        "listen: 127.0.0.1:-1\nports_file_dir: {dir:?}\njetstream {{ store_dir: {:?}, sync_interval: always }}\n{more}\n",
        dir.join("store")
    );
    fs::write(dir.join("nats.conf"), config).unwrap();
    run(dir)
}

/// Its shell kills a server when nobody can write to the shell any more.
pub(crate) fn end(shell: &mut Child) {
    drop(shell.stdin.take());
    shell.wait().ok();
}

/// A server, under a shell that kills it when this process ends, however it does.
pub(crate) fn run(dir: &Path) -> Child {
    let script = r#"nats-server -c "$0" > "$0.log" 2>&1 & server=$!; cat > /dev/null; kill -9 "$server"; wait "$server" 2> /dev/null"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(dir.join("nats.conf")).stdin(Stdio::piped());
    command.spawn().unwrap()
}

/// The server writes a file that says where it listens.
fn url_in(dir: &Path) -> String {
    let begun = Instant::now();
    loop {
        let mut files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        if let Some(file) = files.find(|path| path.extension().is_some_and(|extension| extension == "ports"))
            && let Ok(ports) = serde_json::from_slice::<serde_json::Value>(&fs::read(file).unwrap())
        {
            return ports["nats"][0].as_str().unwrap().to_owned();
        }
        assert!(begun.elapsed() < PATIENCE, "nats-server does not start; is it in the PATH?");
        std::thread::yield_now();
    }
}
